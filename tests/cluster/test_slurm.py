import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from whence.cluster import slurm
from whence.cluster.job import Command, Job
from whence.cluster.slurm import SlurmOptions, Submitted, submit
from whence.errors import WhenceError

Jobs = Callable[..., list[Job]]
Lines = Callable[[Job], list[str]]
# Stands for SLURM's own program: keeps the file it is given and says a number, one more each time.
SBATCH = """#!/bin/sh
number=$((811 + $(ls {kept} | wc -l)))
cp "$1" {kept}/$number
echo "Submitted batch job $number"
"""


@pytest.fixture
def merge(tmp_path: Path) -> Command:
    """A merge that writes how many shards have a state."""
    program = f"import pathlib; n = len(list(pathlib.Path({str(tmp_path / 'shards')!r}).glob('*.json')))"
    write = f"{program}; pathlib.Path({str(tmp_path / 'merged')!r}).write_text(str(n))"
    return Command("the merge", (sys.executable, "-c", write), tmp_path / "logs" / "merge.log")


@pytest.fixture
def submitted_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a stand-in for `sbatch` keeps what it was given, by job number."""
    programs, kept = tmp_path / "programs", tmp_path / "kept"
    programs.mkdir()
    kept.mkdir()
    for name, text in {"sbatch": SBATCH.format(kept=kept), "srun": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return kept


def parameters(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", file.read_text(), re.MULTILINE))


def test_shards_run_as_jobs_of_this_machine_and_the_merge_after_them(
    fake_jobs: Jobs, lines_of: Lines, merge: Command, tmp_path: Path
) -> None:
    jobs = fake_jobs(shards=2, shard_1=["--crash-at", "2"])
    options = SlurmOptions(executor="local", cpus=1)
    submit(jobs, merge, tmp_path / "submitit", memory_gb=1, minutes=1, options=options)
    assert [lines_of(job) for job in jobs] == [[f"window {window}" for window in range(4)]] * 2
    assert jobs[1].log.read_text().count("begins at window") == 2
    assert (tmp_path / "merged").read_text() == "2"


def test_a_shard_that_always_dies_is_said_and_nothing_is_merged(
    fake_jobs: Jobs, merge: Command, tmp_path: Path
) -> None:
    jobs = fake_jobs(shards=1, shard_0=["--crash-at", "2", "--always"])
    with pytest.raises(WhenceError, match=r"(?s)shard 000-of-001 ended with exit status 1.*the worker crashes"):
        submit(jobs, merge, tmp_path / "submitit", memory_gb=1, minutes=1, retries=1, options=SlurmOptions("local"))
    assert not (tmp_path / "merged").exists()
    assert jobs[0].log.read_text().count("begins at window") == 2


def test_slurm_is_asked_for_an_array_and_a_merge_that_depends_on_it(
    fake_jobs: Jobs, merge: Command, tmp_path: Path, submitted_files: Path
) -> None:
    options = SlurmOptions(partition="long", account="lab", gpus=2, cpus=6, parallel=5)
    submitted = submit(fake_jobs(shards=7), merge, tmp_path / "jobs", memory_gb=12, minutes=90, options=options)
    assert submitted == Submitted(tuple(f"811_{shard}" for shard in range(7)), "812")
    shared = {"mem": "12GB", "partition": "long", "account": "lab", "cpus-per-task": "6"}
    array, merging = parameters(submitted_files / "811"), parameters(submitted_files / "812")
    assert array.items() >= {**shared, "array": "0-6%5", "time": "90", "gpus-per-node": "2"}.items()
    assert "dependency" not in array
    assert merging.items() >= {**shared, "dependency": "afterok:811", "kill-on-invalid-dep": "yes"}.items()
    assert not {"array", "gpus-per-node"} & set(merging)


def test_slurm_is_asked_for_no_more_than_was_said(
    fake_jobs: Jobs, merge: Command, tmp_path: Path, submitted_files: Path
) -> None:
    submitted = submit(fake_jobs(shards=1), merge, tmp_path / "jobs", memory_gb=1, minutes=10)
    assert submitted == Submitted(("811",), "812")
    assert not {"array", "partition", "account", "gpus-per-node"} & set(parameters(submitted_files / "811"))
    assert parameters(submitted_files / "812")["dependency"] == "afterok:811"


def test_the_options_say_more_than_the_sizes(
    fake_jobs: Jobs, merge: Command, tmp_path: Path, submitted_files: Path
) -> None:
    options = SlurmOptions(memory_gb=3, minutes=45)
    submit(fake_jobs(), merge, tmp_path / "jobs", memory_gb=12, minutes=90, options=options)
    assert parameters(submitted_files / "811").items() >= {"mem": "3GB", "time": "45"}.items()


def test_each_element_of_the_array_holds_its_own_shard(
    fake_jobs: Jobs, merge: Command, tmp_path: Path, submitted_files: Path
) -> None:
    from submitit.core.utils import DelayedSubmission

    jobs = fake_jobs(shards=3)
    submit(jobs, merge, tmp_path / "jobs", memory_gb=1, minutes=10, options=SlurmOptions(requeues=4))
    for shard, job in enumerate(jobs):
        held = DelayedSubmission.load(tmp_path / "jobs" / f"811_{shard}_submitted.pkl")
        assert held.function.job == job
        assert held._timeout_countdown == 4
        assert held.function.checkpoint().function is held.function, "put back into the queue, it is the same"


def test_a_machine_without_slurm_is_a_sentence(fake_jobs: Jobs, merge: Command, tmp_path: Path) -> None:
    with pytest.raises(WhenceError, match="no `srun`"):
        submit(fake_jobs(), merge, tmp_path, memory_gb=1, minutes=1)


def test_a_missing_submitit_is_a_sentence(
    fake_jobs: Jobs, merge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WhenceError, match=r"pip install 'whence\[slurm\]'"):
        submit(fake_jobs(), merge, tmp_path, memory_gb=1, minutes=1)
