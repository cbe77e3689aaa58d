import json
import sys
from pathlib import Path
from typing import Any

import pytest

from whence.cluster.planned import Planned, read_planned, resources
from whence.cluster.run_plan import plan_run
from whence.errors import FileFormatError

PLAN = {
    "windows": 10,
    "block_elements": 1_000_000_000,
    "block_bytes": 48_000_000_000,
    "model_bytes": 4_000_000_000,
    "batch_bytes": 8_000_000_000,
    "seconds_per_window": 30.0,
    "settings": {"metrics": ["attr", "attr_abs"]},
}


@pytest.fixture
def planned_run(tmp_path: Path) -> Path:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    return tmp_path


def test_the_sizes_of_a_run_are_read_from_its_plan(planned_run: Path) -> None:
    assert read_planned(planned_run) == Planned(10, 10**9, 48 * 10**9, 2, 4 * 10**9, 8 * 10**9, 30.0)


def test_memory_is_the_model_a_batch_and_for_each_element_three_doubles_and_two_floats_a_metric_and_a_float() -> None:
    memory_gb, _ = resources(Planned(10, 10**9, 48 * 10**9, 2, 4 * 10**9, 8 * 10**9, 30.0), shards=3)
    assert memory_gb == 1.25 * (4 + 8 + 2 * (8 + 8 + 8 + 4 + 4) + 4) + 2


def test_time_is_that_of_the_longest_shard() -> None:
    assert resources(Planned(10, 1, 24, 1, 1, 1, 30.0), shards=3)[1] == 10 + 1.5 * 4 * 30 / 60


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (None, r"has no plan\.json"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ({"windows": 1}, "does not say 'block_elements'"),
        ({**PLAN, "settings": {}}, "does not say 'metrics'"),
        ({key: PLAN[key] for key in PLAN if key != "batch_bytes"}, "does not say 'batch_bytes'"),
        ({key: PLAN[key] for key in PLAN if key != "seconds_per_window"}, "does not say 'seconds_per_window'"),
    ],
)
def test_a_plan_that_lacks_something_is_named(tmp_path: Path, plan: Any, says: str) -> None:
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan if isinstance(plan, str) else json.dumps(plan))
    with pytest.raises(FileFormatError, match=says):
        read_planned(tmp_path)


def test_the_plan_has_a_command_for_each_shard_and_the_time_of_its_rounds(planned_run: Path) -> None:
    plan = plan_run(planned_run, "local", shards=3, at_once=2)
    command = f"{sys.executable} -m whence dataset worker {planned_run} --shard"
    assert plan.rows() == [
        ("shard 000-of-003", 3, f"{command} 0/3"),
        ("shard 001-of-003", 3, f"{command} 1/3"),
        ("shard 002-of-003", 4, f"{command} 2/3"),
    ]
    assert plan.seconds == 30 * (3 + 4)
    assert (
        str(plan).splitlines()[0] == "10 windows in 3 shards on local, 2 at once, up to 102 GB each, about 3 min 30 s"
    )
    assert str(plan).splitlines()[3] == f"shard 002-of-003  4 windows  {command} 2/3"


def test_the_time_is_unknown_where_the_cluster_decides(planned_run: Path) -> None:
    plan = plan_run(planned_run, "slurm", shards=3, at_once=None)
    assert plan.seconds is None
    assert "as many at once as there is room for" in str(plan)
    assert "time unknown" in str(plan)


def test_a_run_has_a_shard_for_each_at_once_but_no_empty_ones(planned_run: Path) -> None:
    assert len(plan_run(planned_run, "local", None, 4).jobs) == 4
    assert len(plan_run(planned_run, "local", None, 40).jobs) == 10
    assert len(plan_run(planned_run, "slurm", None, None).jobs) == 1


def test_a_run_keeps_the_shards_it_was_begun_with(planned_run: Path) -> None:
    (planned_run / "shards" / "001-of-003").mkdir(parents=True)
    (planned_run / "shards" / "000-of-003.progress.json").touch()
    assert len(plan_run(planned_run, "local", None, 2).jobs) == 3
    assert len(plan_run(planned_run, "local", 3, 2).jobs) == 3
    with pytest.raises(ValueError, match="begun with 3 shards, not 2"):
        plan_run(planned_run, "local", 2, 2)


@pytest.mark.parametrize(
    ("engine", "shards", "at_once", "says"),
    [
        ("dask", 1, 1, "choose one of local, ray, slurm"),
        ("local", 11, 1, "choose between 1 and 10"),
        ("local", 0, 1, "choose between"),
        ("local", 1, 0, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(planned_run: Path, engine: Any, shards: int, at_once: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan_run(planned_run, engine, shards, at_once)
