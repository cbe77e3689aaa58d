from pathlib import Path

import pytest
import torch

from dataset_runs import given, merged, model, planned
from whence.methods import dataset_stopping
from whence.methods.dataset_shard import _Shard
from whence.methods.dataset_stopping import may_stop
from whence.results import dataset_cells
from whence.results.dataset_stability import overlap

ALIKE = [[5, 6, 7, 8]] * 20  # halves of it agree


def slow_overlap(first: torch.Tensor, second: torch.Tensor, k: int) -> list[float]:
    """By sorting every row; ties go to the first."""
    tops = [[sorted(range(len(row)), key=lambda at: (-abs(row[at]), at))[:k] for row in half.tolist()]
            for half in (first, second)]  # fmt: skip
    return [len(set(one) & set(other)) / k for one, other in zip(*tops, strict=True)]


@pytest.mark.parametrize("k", [1, 3, 7, 12])
def test_the_overlap_is_that_of_sorted_rows_with_ties_to_the_first(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    first, second = (torch.randint(-2, 3, (40, 12), generator=generator).double() for _ in range(2))
    assert overlap(first, second, k).tolist() == pytest.approx(slow_overlap(first, second, k))


def test_halves_are_compared_after_every_fourth_window_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, shares = list[int](), dataset_stopping._shares
    monkeypatch.setattr(dataset_stopping, "_shares", lambda *of: asked.append(len(of[0].windows)) or shares(*of))
    merged(planned(tmp_path, fold=1, stop_at=1.0, batches=7))
    assert set(asked) == {4}


def test_agreement_does_not_depend_on_how_many_rows_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, fold=1, batches=4)
    shard = _Shard(plan, model(), given(), 0, 1)
    totals, _ = shard._resumed()
    for number in range(4):
        shard._window(number, totals)
    whole = {target: torch.cat([*dataset_stopping._shares(totals, target)]) for target in totals.targets}
    monkeypatch.setattr(dataset_cells, "AT_ONCE", 8)
    for target, expected in whole.items():
        found = [*dataset_stopping._shares(totals, target)]
        assert len(found) > 1 or len(expected) < 2, target
        assert torch.equal(torch.cat(found), expected), target
    assert may_stop(totals, 1e-9)
    assert not may_stop(totals, None)


def test_a_block_that_no_odd_window_added_to_counts_as_zero_there(tmp_path: Path) -> None:
    plan = planned(tmp_path, ALIKE, fold=1)
    shard = _Shard(plan, model(), given(), 0, 1)
    totals, _ = shard._resumed()
    for number in range(4):
        shard._window(number, totals)
    target, source = "0.attn.q", "embed"
    half = totals.blocks[target, source].pop("attr.half")
    without = torch.cat([*dataset_stopping._shares(totals, target)])
    totals.blocks[target, source]["attr.half"] = torch.zeros_like(half)
    assert torch.equal(without, torch.cat([*dataset_stopping._shares(totals, target)]))
