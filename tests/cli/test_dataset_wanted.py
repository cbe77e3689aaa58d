from pathlib import Path

import pytest
import typer

from whence.cli.dataset_wanted import Wanted, _below_one


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_least_importance_outside_its_range_is_refused_where_it_is_typed(value: float) -> None:
    with pytest.raises(typer.BadParameter, match="is not from 0 and below 1"):
        _below_one(value)
    assert _below_one(0.5) == 0.5


def test_a_least_importance_that_nothing_counts_by_is_refused_before_a_model_loads() -> None:
    asked = {"model": "demo", "components": ["demo"], "data": ["demo"], "output": Path("runs"), "min_importance": 0.5}
    with pytest.raises(typer.BadParameter, match="it does nothing without --weighting"):
        Wanted(**asked).check()
    Wanted(**asked, weighting="target").check()
