from typing import Any

import pytest
import torch

from dataset_parts import importances
from dataset_runs import merged, model, planned
from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset.named import Given, sorted_out
from whence.methods.dataset_settings import DatasetSettings
from whence.model.linear import weight_of
from whence.model.matrices import matrices
from whence.results.dataset_store import Store

OPTIONS = {"norms": "live", "weighting": "both", "fold": 8}
SQUARE = "mean_squared_attr"
BETWEEN = ("q", "k", "v")  # from which attention carries to other positions


def exact() -> Given:
    """Components without a delta: V orthogonal, U what the matrix makes of it; how much each counts is random."""
    generator, parts = torch.Generator().manual_seed(0), dict[str, Part]()
    for site, one in matrices(model().layout).items():
        if one.layer is not None:
            W = weight_of(one.module)
            V = torch.linalg.qr(torch.randn(W.shape[1], W.shape[1], generator=generator)).Q
            parts[site] = Part(site, V, V.T @ W.T)
    return sorted_out(ParameterComponents(parts, importances(parts)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """As that code does, and exact by pair of positions."""
    folder, components = tmp_path_factory.mktemp("compat"), exact()
    plans = (planned(folder / str(n), components=components, compat=n, **OPTIONS) for n in ("spd-413", None))
    as_theirs, ours = (merged(plan, components=components) for plan in plans)
    return as_theirs, ours


def gap(both: tuple[Store, Store], target: str, source: str, metric: str) -> float:
    """Over the largest number of the exact block."""
    theirs, ours = (store.block(target, source, metric) for store in both)
    return float((theirs - ours).abs().max() / ours.abs().max())


def test_compat_runs_without_deltas_and_squares_every_coordinate(both: tuple[Store, Store]) -> None:
    theirs, ours = (store.header for store in both)
    assert {pair for pair in ours.pairs if not pair[1].endswith(".delta")} == set(theirs.pairs)
    assert not theirs.only
    assert {pair[0] for pair in ours.only} == {"output.stream"}


def test_signed_metrics_are_the_same_sums(both: tuple[Store, Store]) -> None:
    for target, source in both[0].header.pairs:
        for metric in ("attr", "attr_abs") if target != "output.stream" else ("attr",):
            assert gap(both, target, source, metric) <= 1e-4, (target, source, metric)


def test_squares_of_components_are_the_same_at_one_position_and_others_where_attention_carries(
    both: tuple[Store, Store],
) -> None:
    checked = {True: 0, False: 0}
    for target, source in both[1].header.pairs:
        if target == "output.stream" or source.count(".") != 2:  # deltas, biases, embeddings
            continue
        carried = target == "0.attn.o" and source.split(".")[-1] in BETWEEN
        found = gap(both, target, source, SQUARE)
        assert (found > 0.05) if carried and not source.endswith(".q") else (found <= 1e-4), (target, source, found)
        checked[carried] += 1
    assert checked == {True: 3, False: 6}


def test_squares_of_embeddings_are_by_coordinate(both: tuple[Store, Store]) -> None:
    assert gap(both, "0.attn.q", "embed", SQUARE) > 0.05


@pytest.mark.parametrize(("norms", "weighting"), [("frozen", "both"), ("live", "none"), ("live", "target")])
def test_compat_is_refused_with_settings_that_code_has_not(norms: Any, weighting: Any) -> None:
    with pytest.raises(ValueError, match="compat='spd-413' is for norms='live' and weighting='both', which that code"):
        DatasetSettings(norms=norms, weighting=weighting, compat="spd-413")
