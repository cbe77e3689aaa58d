from pathlib import Path
from typing import Any

import pytest

from dataset_runs import gaps, given, merged, model, planned
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.stream import StreamKernel
from whence.errors import LedgerError
from whence.methods.dataset_shard import run_shard
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_store import open_store

GAP = 1e-5  # of the parts' magnitudes, in float32


@pytest.mark.parametrize("weighting", ["none", "target"])
def test_in_the_result_sources_that_belong_to_a_sum_add_up_to_their_target(tmp_path: Path, weighting: str) -> None:
    store = merged(planned(tmp_path, weighting=weighting, min_importance=0.0 if weighting == "none" else 0.2))
    found = gaps(store)
    assert set(found) == set(store.header.targets)
    assert max(found.values()) <= GAP
    assert {source for (target, source), held in store.header.pairs.items() if not held} == {
        *("0.attn.q", "0.attn.q.delta", "0.attn.q.bias", "0.attn.k", "0.attn.k.delta", "0.attn.k.bias"),
        *("0.glu.gate", "0.glu.gate.delta"),
    }
    assert store.header.provenance["shards"][0]["provenance"]["worst_gap"] <= GAP


@pytest.mark.parametrize(
    "settings",
    [{"norms": "live"}, {"weighting": "source"}, {"weighting": "both"}],
    ids=lambda one: "-".join(one.values()),
)
def test_no_sum_is_claimed_with_live_norms_or_sources_that_count_by_importance(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    store = merged(planned(tmp_path, batches=2, **settings))
    assert not any(store.header.pairs.values())
    assert not any(entry.in_sum for entry in DatasetAttributions(store).top_sources("0.glu.up:0", 5))


def test_a_kernel_that_loses_a_source_is_found_out_and_the_target_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, emit = planned(tmp_path), StreamKernel._emit

    def loses(self: StreamKernel, writing: Any, line: int, bucket: Any, metric: str, F: Any, window: Window) -> None:
        emit(self, writing, line, bucket, metric, 0.0 * F if writing.site == "embed" else F, window)

    def progress(stage: str, done: int, total: int) -> None:
        monkeypatch.setattr(StreamKernel, "_emit", loses)  # once a window is done; wiring up would refuse it, too

    with pytest.raises(LedgerError, match=r"0\.attn\.q: the attributions of window 1 miss what its units read by"):
        run_shard(plan, model(), given(), flush_seconds=0.0, progress=progress)
    assert open_store(plan.shard_folder(0, 1)).header.windows == (0,)
