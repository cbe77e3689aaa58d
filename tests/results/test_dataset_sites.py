"""Whole sites: the matrix, the units, what halves of the data agree on, what another run changed, the picture."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from dataset_random import IDS, PAIRS, SOURCES, made
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import STREAM, Axis
from whence.results.dataset_memory import MemoryStore
from whence.results.dataset_plot import shares_of
from whence.results.dataset_sites import layer_matrix
from whence.results.dataset_stability import overlap, rank_correlation


@pytest.mark.parametrize("how", ["sum_abs", "rms", "sum"])
@pytest.mark.parametrize("metric", ["attr", "rms"])
def test_the_matrix_of_sites_sums_every_pair_of_units(how: Any, metric: Any) -> None:
    attributions = DatasetAttributions(made().store)
    matrix = attributions.layer_matrix(metric=metric, how=how)
    for to in matrix.targets:
        for site in matrix.sources:
            if (to, site) not in PAIRS or (to == STREAM and metric == "rms"):
                assert math.isnan(matrix[to, site])
                continue
            values = [float(v) for v in attributions.block(to, site, metric=metric).values.flatten()]
            by_hand = {
                "sum_abs": sum(map(abs, values)),
                "rms": math.sqrt(sum(v * v for v in values) / len(values)),
                "sum": sum(values),
            }
            assert matrix[to, site] == pytest.approx(by_hand[how], rel=1e-12)


def test_a_matrix_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="none of sum_abs, rms, sum"):
        layer_matrix(DatasetAttributions(made().store), "attr", "mean", "token")


def test_blocks_read_in_runs_of_rows_are_the_same_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = DatasetAttributions(made().store), DatasetAttributions(made(1).store)
    whole = first.layer_matrix(), first.diff(second).top(8), first.stability(2), first.to_graph_json(k=2)["links"]
    monkeypatch.setattr("whence.results.dataset_cells.AT_ONCE", 5)

    parts = first.layer_matrix(), first.diff(second).top(8), first.stability(2), first.to_graph_json(k=2)["links"]

    torch.testing.assert_close(parts[0].values, whole[0].values, equal_nan=True)
    assert parts[1] == whole[1]
    assert parts[2].overlap == pytest.approx(whole[2].overlap)
    assert sorted(map(str, parts[3])) == sorted(map(str, whole[3]))


def test_units_have_the_quantities_of_both_sides() -> None:
    store = made().store
    units = DatasetAttributions(store).components("0.attn.o")
    tokens = DatasetAttributions(store).components("embed")

    assert repr(units) == "Units(0.attn.o: 4 of 8 stored)"
    assert [str(key) for key in units.keys] == ["0.attn.o:0", "0.attn.o:3", "0.attn.o:5", "0.attn.o:6"]
    assert torch.equal(units.as_target["square"], store.header.targets["0.attn.o"].quantities["square"])
    assert torch.equal(units.as_source["fired"], store.header.sources["0.attn.o"].quantities["fired"])
    assert tokens.tokens == {2: " the", 5: "▁cat", 7: "\n"}
    assert not tokens.as_target
    with pytest.raises(ValueError, match="the sites are embed, pos_embed"):
        DatasetAttributions(store).components("7.attn.q")


def test_units_alive_on_one_side_only_are_undefined_on_the_other() -> None:
    store = made().store
    axis = store.header.targets["0.attn.o"]
    quantities = {name: each[1:] for name, each in axis.quantities.items()}
    short = Axis("0.attn.o", axis.ids[1:], axis.size, quantities)
    header = replace(store.header, targets=dict(store.header.targets) | {"0.attn.o": short})
    blocks = {
        pair: {name: each[1:] if pair[0] == "0.attn.o" else each for name, each in block.items()}
        for pair, block in store.blocks.items()
    }

    units = DatasetAttributions(MemoryStore(header, blocks)).components("0.attn.o")

    assert len(units) == 4
    assert units.as_target["square"].isnan().tolist() == [True, False, False, False]
    assert not units.as_source["fired"].isnan().any()


# ---------------------------------------------------------------- halves


def _average_ranks(values: list[float]) -> list[float]:
    return [sum(other < v for other in values) + (sum(other == v for other in values) - 1) / 2 for v in values]


def _pearson(first: list[float], second: list[float]) -> float:
    means = sum(first) / len(first), sum(second) / len(second)
    cross = sum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True))
    spread = math.sqrt(sum((a - means[0]) ** 2 for a in first) * sum((b - means[1]) ** 2 for b in second))
    return cross / spread if spread else 0.0


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=8), st.integers(1, 4))
@settings(deadline=None)
def test_agreement_of_two_rows_is_that_of_their_lists(pairs: list[tuple[int, int]], k: int) -> None:
    first, second = ([float(pair[i]) for pair in pairs] for i in range(2))
    k = min(k, len(first))
    best = [sorted(range(len(row)), key=lambda i, row=row: -abs(row[i]))[:k] for row in (first, second)]
    rows = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)

    assert float(overlap(*rows, k)) == pytest.approx(len({*best[0]} & {*best[1]}) / k)
    by_hand = _pearson(_average_ranks(first), _average_ranks(second))
    assert float(rank_correlation(*rows)) == pytest.approx(by_hand, abs=1e-12)


def test_stability_compares_odd_windows_with_even_ones() -> None:
    drawn = made(2)
    found = DatasetAttributions(drawn.store).stability(2)
    site = "1.attn.head.q"
    windows = torch.cat([drawn.windows[pair]["attr"] for pair in PAIRS if pair[0] == site], 2)
    odd, even = windows[1::2].sum(0), windows[0::2].sum(0)

    assert found.sites[site].overlap == pytest.approx(float(overlap(odd, even, 2).mean()))
    assert found.sites[site].rank_correlation == pytest.approx(float(rank_correlation(odd, even).mean()))
    assert found.sites[site].targets == len(IDS[site][0])
    total = sum(one.targets for one in found.sites.values())
    assert found.overlap == pytest.approx(sum(one.overlap * one.targets for one in found.sites.values()) / total)


def test_halves_that_are_alike_agree_wholly() -> None:
    store = made().store
    blocks = {
        pair: {name: 2 * block["attr"] if name == "attr" else block["attr"] for name in ("attr", "attr.half")}
        for pair, block in store.blocks.items()
    }
    header = replace(store.header, statistics=("attr", "attr.half"), only={})

    found = DatasetAttributions(MemoryStore(header, blocks)).stability(3)

    assert found.overlap == pytest.approx(1.0)
    assert found.rank_correlation == pytest.approx(1.0, abs=0.35)  # one site has a single source, which has no order
    assert found.sites["0.attn.o"].rank_correlation == pytest.approx(1.0)


def test_stability_without_halves_is_refused() -> None:
    store = made().store
    bare = replace(store, header=replace(store.header, statistics=("attr",), only={}))
    single = replace(store, header=replace(store.header, windows=(0, 2)))

    with pytest.raises(ValueError, match="halves of attr were not kept"):
        DatasetAttributions(bare).stability()
    with pytest.raises(ValueError, match="windows of both parities"):
        DatasetAttributions(single).stability()


# ---------------------------------------------------------------- another run


def test_differences_are_those_of_blocks_with_errors_added_in_squares() -> None:
    before, after = DatasetAttributions(made().store), DatasetAttributions(made(1).store)
    differences = before.diff(after, metric="attr_abs")
    for to, site in PAIRS:
        if to == STREAM:
            continue
        blocks = [each.block(to, site, metric="attr_abs") for each in (before, after)]
        changed = differences.block(to, site)
        errors = [block.standard_errors for block in blocks]
        assert errors[0] is not None
        assert errors[1] is not None
        assert torch.equal(changed.values, blocks[1].values - blocks[0].values)
        torch.testing.assert_close(changed.standard_errors, (errors[0] ** 2 + errors[1] ** 2).sqrt())


@pytest.mark.parametrize("by", ["value", "z"])
def test_top_changes_are_a_sort_of_all_changes(by: Any) -> None:
    before, after = DatasetAttributions(made().store), DatasetAttributions(made(1).store)
    differences = before.diff(after)
    sizes: dict[tuple[str, str], float] = {}
    for pair in differences.pairs:
        if pair[0] == STREAM:
            continue
        block = differences.block(*pair)
        assert block.standard_errors is not None
        size = block.values.abs() if by == "value" else block.values.abs() / block.standard_errors
        for i, target in enumerate(block.targets):
            for j, source in enumerate(block.sources):
                sizes[str(source), str(target)] = float(size[i, j])
    best = sorted(sizes, key=lambda edge: -sizes[edge])[:9]

    found = differences.top(9, by=by)

    assert [(str(change.source), str(change.target)) for change in found] == best
    assert all(change.value == change.after - change.before for change in found)
    assert found[0].before == before.between(found[0].source, found[0].target).value


def test_units_are_matched_by_key_and_others_left_out() -> None:
    first, second = made().store, made(1, settings={"batch_size": 3}).store
    axis = second.header.sources["embed"]
    ids = torch.tensor([2, 6, 7, 11])  # where the other has 2, 5, 7, 9
    sources = dict(second.header.sources) | {"embed": Axis("embed", ids, axis.size, axis.quantities)}
    other = DatasetAttributions(replace(second, header=replace(second.header, sources=sources)))
    differences = DatasetAttributions(first).diff(other)

    changed = differences.block("0.attn.q", "embed")

    assert changed.source_ids.tolist() == [2, 7]
    one = DatasetAttributions(first).between("embed:7", "0.attn.q:4").value
    assert float(changed.values[2, 1]) == pytest.approx(other.between("embed:7", "0.attn.q:4").value - one)
    assert differences.settings == {"batch_size": (None, 3)}
    assert "settings that differ: batch_size" in repr(differences)
    assert not differences.unmatched
    assert not any("embed:5" in str(change.source) for change in differences.top(500))


def test_a_run_does_not_differ_from_itself() -> None:
    attributions = DatasetAttributions(made().store)

    assert not attributions.diff(attributions).top(5)


# ---------------------------------------------------------------- shown


def test_the_sites_and_rankings_print() -> None:
    attributions = DatasetAttributions(made().store)
    console = Console(width=100, record=True, file=None, quiet=True)
    ranking = attributions.top_sources("output:2", 4, sign="both", offset=1)
    with console.capture() as said:
        console.quiet = False
        console.print(attributions.table())
        console.print(ranking.table())
    text = said.get()

    assert repr(attributions) == (
        "DatasetAttributions(24 blocks from 7 source sites to 7 target sites, over 328 tokens in 4 windows)"
    )
    assert "What feeds output:2" in text
    assert f"2 to 5 of {ranking.ranked}" in text
    assert str(ranking[0].key) in text
    assert all(site in text for site in SOURCES)
    assert repr(ranking).startswith("Ranking(sources of output:2, attr by token, 2-5 of")


def test_local_derivatives_are_marked_where_they_are_shown() -> None:
    ranking = DatasetAttributions(made().store).top_sources("0.attn.o:3", 9, sign="both", sites=["0.attn.q"])

    assert ranking._repr_html_().count(" *<") == len(ranking)
    assert "local derivative" in ranking._repr_html_()


def test_a_notebook_shows_tokens_escaped() -> None:
    store = made(settings={"token_strings": {"5": "<b>"}}).store
    page = DatasetAttributions(store).top_sources("output:2", 20, sign="both")._repr_html_()

    assert "&lt;b&gt;" in page
    assert "<b>5" not in page


def test_a_ranking_of_nothing_prints() -> None:
    ranking = DatasetAttributions(made().store).top_sources("output:2", offset=1000)

    assert not len(ranking)
    assert repr(ranking).endswith(f"none of {ranking.ranked})")
    Console(width=80, quiet=True).print(ranking.table())


def test_the_matrix_is_drawn_by_share_of_its_rows(tmp_path: Path) -> None:
    attributions = DatasetAttributions(made().store)
    matrix = attributions.layer_matrix(how="sum")
    shares = shares_of(matrix)

    figure = attributions.plot_layer_matrix(tmp_path / "sites.png", how="sum")

    torch.testing.assert_close(shares.abs().nansum(1), torch.ones(len(matrix.targets), dtype=torch.float64))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(matrix.targets)
    written = {(round(text.get_position()[1]), round(text.get_position()[0])) for text in axes.texts}
    assert written == {tuple(place) for place in (shares.abs() >= 0.01).nonzero().tolist()}
    assert matplotlib.image.imread(tmp_path / "sites.png").shape[0] > 300
