"""Areas against closed forms, and the views of a sweep."""

from math import log
from pathlib import Path

import pytest
import torch

from whence.results.circuit_faithfulness import CircuitScore
from whence.results.circuit_sweep import SIZES, CircuitSweep, area


def swept(values: list[float], sizes: tuple[float, ...] = SIZES, edges: bool = False) -> CircuitSweep:
    """A sweep with these faithfulnesses; completeness is what is left."""
    ones = torch.ones(3, dtype=torch.float64)
    many = [round(1000 * size) for size in sizes]
    scores = [
        [CircuitScore(kind, value * ones, 0 * ones, ones, n, 2 * n if edges else None, 2000, n) for n, value in given]
        for kind, given in (
            ("faithfulness", list(zip(many, values, strict=True))),
            ("completeness", [(n, 1 - value) for n, value in zip(many, values, strict=True)]),
        )
    ]
    return CircuitSweep("edges" if edges else "nodes", sizes, None, *map(tuple, scores))


def test_a_perfect_circuit_of_any_size_has_the_whole_area() -> None:
    perfect = swept([1.0] * 10)
    assert perfect.cpr() == pytest.approx(0.999)
    assert perfect.cmd() == 0.0
    assert perfect.cpr(log=True) == pytest.approx(log(1000))
    assert perfect.cmd(log=True) == 0.0


def test_faithfulness_in_proportion_to_size_has_half_the_area() -> None:
    line = swept(list(SIZES))
    assert line.cpr() == pytest.approx((1 - 0.001**2) / 2)
    assert line.cmd() == pytest.approx(0.999 - (1 - 0.001**2) / 2)
    logs = swept([log(size) for size in SIZES])
    assert logs.cpr(log=True) == pytest.approx(-(log(0.001) ** 2) / 2)


def test_overshoot_counts_for_one_area_and_against_the_other() -> None:
    over = swept([1.5, 1.5], (0.5, 1.0))
    assert (over.cpr(), over.cmd()) == pytest.approx((0.75, 0.25))


def test_sizes_may_come_in_any_order_and_nothing_is_no_size_of_an_area() -> None:
    values = torch.tensor([5.0, 1.0, 0.0], dtype=torch.float64)
    assert area([0.0, 1.0, 0.5], values) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="at least two sizes above 0; there are 1 of 2"):
        area([0.0, 1.0], values[:2])


def test_parts_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="the same number of each"):
        CircuitSweep("nodes", (0.1,), None, (), ())


@pytest.mark.parametrize("edges", [False, True])
def test_a_sweep_is_seen_in_every_form(tmp_path: Path, edges: bool) -> None:
    sweep = swept([0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.0], edges=edges)
    table = sweep.table()
    heads = [str(column.header) for column in table.columns]
    assert heads == ["size", "nodes", "edges" if edges else "of active", "faithfulness", "95 %", "completeness"]
    assert (table.row_count, len(sweep)) == (10, 10)
    frame = sweep.to_dataframe()
    assert frame["faithfulness"].tolist() == pytest.approx(sweep.values.tolist())
    assert ("edges" in frame) == edges
    for suffix in ("png", "svg"):
        sweep.plot(tmp_path / f"sweep.{suffix}")
        assert (tmp_path / f"sweep.{suffix}").stat().st_size > 5000
    axes = sweep.plot().axes[0]
    assert axes.get_xlabel() == ("edges kept" if edges else "nodes kept")
    assert "the most faithful: faithfulness 1.000" in repr(sweep)


def test_a_part_with_nothing_in_it_is_in_the_picture() -> None:
    axes = swept([0.0, 0.5, 1.0], (0.0, 0.1, 1.0)).plot().axes[0]
    assert axes.get_xlim()[0] == 0.0
    assert [tick.get_text() for tick in axes.get_xticklabels()][:2] == ["0", "1"]


def test_a_picture_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="suffix must be one of"):
        swept([1.0] * 10).plot("sweep.gif")
