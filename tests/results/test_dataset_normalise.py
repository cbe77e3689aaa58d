"""Divisors and standard errors, against the windows that the sums were made of."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dataset_random import IDS, PAIRS, WINDOW_TOKENS, made
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import STREAM
from whence.results.dataset_errors import of_mean
from whence.results.dataset_memory import MemoryStore
from whence.results.dataset_normalise import check

METRICS = ("attr", "attr_abs", "mean_squared_attr", "rms")
NORMALISERS = ("token", "source", "share", "target_rms", "none")


def _by_hand(total: float, metric: str, normalise: str, target: dict[str, float], source: dict[str, float]) -> float:
    tokens, squared = sum(WINDOW_TOKENS), metric in ("mean_squared_attr", "rms")
    mean_square = target["square"] / tokens
    value = {
        "token": total / tokens,
        "source": total / source["importance"],
        "share": total / target["absolute"],
        "target_rms": total / tokens / (mean_square if squared else math.sqrt(mean_square)),
        "none": total,
    }[normalise]
    return math.sqrt(value) if metric == "rms" else value


def _lines(quantities: dict[str, Tensor], line: int) -> dict[str, float]:
    return {name: float(each[line]) for name, each in quantities.items()}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("normalise", NORMALISERS)
def test_every_number_is_the_raw_sum_over_what_is_said(metric: str, normalise: str) -> None:
    if normalise == "share" and metric in ("mean_squared_attr", "rms"):
        return
    store = made().store
    header, attributions = store.header, DatasetAttributions(store)
    for to, site in PAIRS:
        if to == STREAM:
            continue
        raw = store.block(to, site, "mean_squared_attr" if metric == "rms" else metric)
        found = attributions.block(to, site, metric=metric, normalise=normalise)
        for i in range(len(IDS[to][0])):
            for j in range(len(IDS[site][0])):
                target, source = _lines(header.targets[to].quantities, i), _lines(header.sources[site].quantities, j)
                by_hand = _by_hand(float(raw[i, j]), metric, normalise, target, source)
                assert math.isclose(float(found.values[i, j]), by_hand, rel_tol=1e-12)


@pytest.mark.parametrize("metric", ["attr", "attr_abs", "mean_squared_attr"])
def test_standard_errors_are_those_of_a_list_of_windows(metric: str) -> None:
    drawn = made(3)
    tokens, total = torch.tensor(WINDOW_TOKENS, dtype=torch.float64), sum(WINDOW_TOKENS)
    attributions = DatasetAttributions(drawn.store)
    for pair, windows in drawn.windows.items():
        if metric not in windows:
            continue
        mean = windows[metric].sum(0) / total
        by_hand = torch.zeros_like(mean)
        for count, window in zip(tokens, windows[metric], strict=True):
            by_hand += count * (window / count - mean) ** 2
        by_hand = (by_hand / ((len(tokens) - 1) * total)).sqrt()

        found = attributions.block(*pair, metric=metric).standard_errors

        assert found is not None
        torch.testing.assert_close(found, by_hand, rtol=1e-9, atol=1e-14)


def test_with_windows_of_one_size_the_error_is_the_usual_one() -> None:
    random = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    means = random / 10
    usual = means.std(0) / math.sqrt(5)

    torch.testing.assert_close(of_mean(random.sum(0), (random**2 / 10).sum(0), 50, 5), usual)


def test_errors_scale_with_their_values_and_a_root_has_them_by_the_delta_method() -> None:
    attributions = DatasetAttributions(made().store)
    mean = attributions.block("0.attn.o", "0.attn.v", metric="mean_squared_attr")
    root = attributions.block("0.attn.o", "0.attn.v", metric="rms")
    fired = attributions.block("0.attn.o", "0.attn.v", metric="mean_squared_attr", normalise="source")

    assert mean.standard_errors is not None
    assert root.standard_errors is not None
    assert fired.standard_errors is not None
    torch.testing.assert_close(root.standard_errors, mean.standard_errors / (2 * mean.values.sqrt()))
    torch.testing.assert_close(fired.standard_errors / fired.values, mean.standard_errors / mean.values)


def test_one_window_has_no_standard_error_and_squares_not_kept_have_none() -> None:
    store = made().store
    one = _with(store, windows=(0,))
    bare = _with(store, statistics=("attr", "attr_abs", "mean_squared_attr"))

    assert DatasetAttributions(one).between("0.attn.v:1", "0.attn.o:3").standard_error is None
    assert DatasetAttributions(bare).between("0.attn.v:1", "0.attn.o:3").standard_error is None
    assert DatasetAttributions(store).between("0.attn.v:1", "0.attn.o:3").standard_error is not None


def test_what_never_fires_has_no_number_by_firing_and_no_rank() -> None:
    store = made().store
    store.header.sources["0.attn.v"].quantities["importance"][0] = 0  # pyright: ignore[reportIndexIssue]
    attributions = DatasetAttributions(store)

    found = attributions.block("0.attn.o", "0.attn.v", normalise="source")
    keys = attributions.top_sources("0.attn.o:3", 50, sign="both", normalise="source").keys

    assert found.values[:, 0].isnan().all()
    assert not found.values[:, 1:].isnan().any()
    assert "0.attn.v:1" not in map(str, keys)
    assert "0.attn.v:2" in map(str, keys)
    assert math.isfinite(attributions.layer_matrix(normalise="source")["0.attn.o", "0.attn.v"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metric": "square"}, "none of attr, attr_abs, mean_squared_attr, rms"),
        ({"normalise": "tokens"}, "none of token, source, share, target_rms, none"),
        ({"metric": "rms", "normalise": "share"}, "Use normalise='target_rms'"),
        ({"metric": "mean_squared_attr", "normalise": "share"}, "no share"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(asked: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(made().store.header, **{"metric": "attr", "normalise": "token"} | asked)


def test_a_metric_that_was_not_counted_is_refused_with_those_that_were() -> None:
    attributions = DatasetAttributions(_with(made().store, statistics=("attr", "attr.half"), only={}))

    with pytest.raises(ValueError, match=r"attr_abs was not counted here, only attr\. Name it in metrics="):
        attributions.top_sources("0.attn.o:3", metric="attr_abs")


def test_a_quantity_that_was_not_kept_is_named() -> None:
    store = made().store
    del store.header.sources["0.attn.v"].quantities["importance"]  # pyright: ignore[reportIndexIssue]

    with pytest.raises(ValueError, match=r"needs the importance of 0\.attn\.v, not kept here; use 'token'"):
        DatasetAttributions(store).block("0.attn.o", "0.attn.v", normalise="source")


def _with(store: MemoryStore, **changes: object) -> MemoryStore:
    return replace(store, header=replace(store.header, **changes))
