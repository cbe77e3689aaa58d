from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from whence.cluster.job import Job
from whence.cluster.standing import Standing, Tally, duration
from whence.results.shard_progress import ShardProgress, write_progress

Jobs = Callable[..., list[Job]]


def says(job: Job, windows: int, *, tokens: int, peak: int = 0, finished: bool = False) -> None:
    write_progress(job.progress, ShardProgress(windows, job.windows, tokens, 1.0, peak, finished))


def clock(*seconds: float) -> Callable[[], float]:
    times: Iterator[float] = iter(seconds)
    return lambda: next(times)


def test_nothing_is_known_before_a_shard_has_said_anything(fake_jobs: Jobs) -> None:
    standing = Tally(fake_jobs(), clock(0.0, 5.0)).standing()
    assert standing == Standing(3, 0, 12, 0, 0, None, None, 0)
    assert str(standing) == "0 of 12 windows · 0 of 3 shards · 0 tokens"


def test_speed_and_time_left_count_from_the_beginning_of_the_watch(fake_jobs: Jobs) -> None:
    jobs = fake_jobs()
    says(jobs[0], 3, tokens=3000)
    tally = Tally(jobs, clock(100.0, 110.0))
    says(jobs[0], 4, tokens=4000, finished=True)
    says(jobs[1], 1, tokens=1000)
    standing = tally.standing()
    assert (standing.windows_done, standing.tokens, standing.shards_done) == (5, 5000, 1)
    assert standing.tokens_per_second == pytest.approx(2000 / 10)
    assert standing.seconds_left == pytest.approx(7 * 10 / 2)


def test_memory_is_that_of_the_shards_at_work_and_its_peak_stays(fake_jobs: Jobs) -> None:
    jobs = fake_jobs()
    says(jobs[2], 1, tokens=0, peak=10**12)
    tally = Tally(jobs)
    says(jobs[0], 1, tokens=10, peak=2 * 10**9)
    says(jobs[1], 1, tokens=10, peak=3 * 10**9)
    assert tally.standing().peak_bytes == 5 * 10**9, "the third said it in an earlier run"
    says(jobs[0], 4, tokens=40, peak=2 * 10**9, finished=True)
    assert tally.standing().peak_bytes == 5 * 10**9
    assert str(tally.standing()).endswith("5.0 GB")
    assert str(replace(tally.standing(), peak_bytes=7 * 10**6)).endswith("7 MB")


def test_a_damaged_file_counts_for_nothing(fake_jobs: Jobs) -> None:
    jobs = fake_jobs(shards=1)
    jobs[0].progress.parent.mkdir()
    jobs[0].progress.write_text("{")
    assert Tally(jobs).standing().windows_done == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3599.9, "1 h 00 min"), (90061, "25 h 01 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(float(seconds)) == said
