from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import whence
from circuit_cases import Wide
from dataset_families import Places
from dataset_oracle import Blocks
from dataset_parts import random_parts, small
from whence.components.parameters import ParameterComponents
from whence.corpus.token_rows import TokenRows
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS, STREAM

DOCUMENTS = [[5, 6, 7, 5], [9, 6], [8, 5, 9], [7], [6, 9, 6]]
TOKENS = torch.tensor([5, 9])
EXACT = 1e-9  # of a block's largest number
CANCELS = 1e-12
PAIRS = (("0.attn.q", "embed"), ("0.attn.o", "0.attn.v"), ("0.attn.o", "0.attn.k"), ("1.glu.up", "0.glu.down"))
PAIRS = (*PAIRS, ("1.glu.down", "1.glu.gate"), ("output", "1.attn.o"), ("output", "embed"))
SETTINGS: tuple[dict[str, Any], ...] = (
    {"norms": "frozen", "weighting": "both", "min_importance": 0.2},
    {"norms": "live", "weighting": "target", "min_importance": 0.0},
)


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda one: one["norms"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DatasetAttributions, list[Blocks], list[int]]:
    """A result in windows of two rows, the blocks of each window by backward passes, and its tokens."""
    model, folder = small("llama biased"), tmp_path_factory.mktemp("brute")
    parts = random_parts(model, 2)
    with Wide():
        result = whence.dataset_attributions(
            model,
            parts,
            DOCUMENTS,
            out=folder,
            batch_size=1,
            fold=2,
            sequence_length=8,
            pack=False,
            output_tokens=TOKENS.tolist(),
            **request.param,
        )
        (run,) = folder.iterdir()
        rows = TokenRows.open(run / "tokens")
        order = [int(rows.batch(index, 1).numbers) for index in range(5)]
        windows = [order[:2], order[2:4], order[4:]]
        truth = [by_hand(model, parts, numbers, rows.seen, request.param) for numbers in windows]
    return result, truth, [sum(len(DOCUMENTS[number]) for number in numbers) for numbers in windows]


def by_hand(model: Any, parts: ParameterComponents, numbers: list[int], seen: Tensor, settings: Any) -> Blocks:
    """The blocks of some rows, each row under its own number."""
    total: Blocks = {}
    for number in numbers:
        importances = replace(parts, importance=lambda inputs, rows, n=number: parts.importance(inputs, rows + n))
        oracle = Places("llama biased", model.hf).oracle(importances, seen, TOKENS)
        live, least = settings["norms"] == "live", settings["min_importance"]
        found = oracle.blocks(
            [torch.tensor(DOCUMENTS[number])], live=live, weighting=settings["weighting"], least=least
        )
        for pair, sums in found.items():
            own = total.setdefault(pair, {})
            for metric, block in sums.items():
                own[metric] = own.get(metric, 0) + block
    return total


def summed(truth: list[Blocks], pair: tuple[str, str], metric: str) -> Tensor:
    return torch.stack([window[pair][metric] for window in truth]).sum(0)


def test_every_raw_sum_of_the_store_is_that_of_backward_passes(
    run: tuple[DatasetAttributions, list[Blocks], list[int]],
) -> None:
    result, truth, tokens = run
    assert (result.tokens, result.header.windows) == (sum(tokens), (0, 1, 2))
    assert set(result.header.pairs) == set(truth[0])
    for target, source in result.header.pairs:
        for metric in METRICS if target != STREAM else METRICS[:1]:
            own, by_hand = result.store.block(target, source, metric), summed(truth, (target, source), metric)
            assert (own - by_hand).abs().max() <= EXACT * by_hand.abs().max() + CANCELS, (target, source, metric)
            odd = result.store.block(target, source, f"{metric}.half")
            assert (odd - truth[1][target, source][metric]).abs().max() <= EXACT * by_hand.abs().max() + CANCELS


@pytest.mark.parametrize("metric", METRICS)
def test_means_and_standard_errors_are_those_of_the_windows(
    run: tuple[DatasetAttributions, list[Blocks], list[int]], metric: str
) -> None:
    result, truth, tokens = run
    n = torch.tensor(tokens, dtype=torch.float64)[:, None, None]
    for pair in PAIRS:
        each = torch.stack([window[pair][metric] for window in truth])
        mean = each.sum(0) / n.sum()
        error = ((n * (each / n - mean) ** 2).sum(0) / (2 * n.sum())).sqrt()
        block = result.block(*pair, metric=metric)
        assert torch.allclose(block.values, mean, rtol=1e-8, atol=1e-12)
        assert block.standard_errors is not None
        assert torch.allclose(block.standard_errors, error, rtol=1e-5, atol=1e-9)


def test_normalised_values_are_divided_by_sums_over_tokens(
    run: tuple[DatasetAttributions, list[Blocks], list[int]],
) -> None:
    result, truth, tokens = run
    pair = "0.attn.o", "0.attn.v"
    raw, square = summed(truth, pair, "attr"), summed(truth, pair, "mean_squared_attr")
    target, source = result.header.targets[pair[0]].quantities, result.header.sources[pair[1]].quantities
    close = {"rtol": 1e-8, "atol": 1e-12}
    found = {name: result.block(*pair, normalise=name).values for name in ("source", "share", "target_rms", "none")}
    assert torch.allclose(found["none"], raw, **close)
    assert torch.allclose(found["source"], raw / source["importance"], **close)
    assert torch.allclose(found["share"], raw / target["absolute"][:, None], **close)
    assert torch.allclose(found["target_rms"], raw / (sum(tokens) * target["square"])[:, None].sqrt(), **close)
    assert torch.allclose(result.block(*pair, metric="rms").values, (square / sum(tokens)).sqrt(), **close)


def test_a_ranking_has_the_numbers_of_its_row(run: tuple[DatasetAttributions, list[Blocks], list[int]]) -> None:
    result, truth, tokens = run
    found = result.top_sources("output:5", 500, sign="both")
    values = {(entry.site, entry.key.index or 0): entry.value for entry in found}
    ids = {site: axis.ids.tolist() for site, axis in result.header.sources.items()}
    for (target, source), held in result.header.pairs.items():
        if target == "output":
            row = summed(truth, (target, source), "attr")[0] / sum(tokens)
            for id, value in zip(ids[source], row.tolist(), strict=True):
                assert values.get((source, id), 0.0) == pytest.approx(value, rel=1e-7, abs=1e-12)
            assert all(entry.in_sum == held for entry in found if entry.site == source)
