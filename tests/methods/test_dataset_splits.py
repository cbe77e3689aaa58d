import shutil
from pathlib import Path

import pytest

from dataset_runs import differences, merged, planned, same_bits, sharded
from whence.errors import FileFormatError
from whence.methods.dataset import merge_run
from whence.methods.dataset_plan import read_plan
from whence.results.dataset_merge import merge_stores
from whence.results.dataset_store import Store, open_store

EXACT = 1e-12  # of an array's largest number


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """A plan, and its result in one shard."""
    plan = planned(tmp_path_factory.mktemp("splits"))
    return plan.folder, merged(plan)


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_any_split_gives_the_sums_of_one_shard(whole: tuple[Path, Store], tmp_path: Path, shards: int) -> None:
    folder, truth = whole
    assert len(truth.header.windows) == 4
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("shards", "result"))
    found = merged(read_plan(tmp_path / "run"), shards)
    assert (found.header.tokens, found.header.windows) == (truth.header.tokens, truth.header.windows)
    off = {name: gap for name, gap in differences(found, truth).items() if gap > EXACT}
    assert not off


def test_the_same_shards_in_any_order_give_the_same_bits(tmp_path: Path) -> None:
    folders = sharded(planned(tmp_path), 3)
    orders = [folders, folders[::-1], [folders[1], folders[2], folders[0]]]
    stores = [open_store(merge_stores(order, tmp_path / f"{n}", expected=range(4))) for n, order in enumerate(orders)]
    same_bits(stores[0], stores[1])
    same_bits(stores[0], stores[2])


def test_a_shard_without_windows_is_a_store_of_zeros(tmp_path: Path) -> None:
    plan = planned(tmp_path, batches=1)
    assert plan.windows == 1
    first, second = sharded(plan, 2)
    assert [len(open_store(folder).header.windows) for folder in (first, second)] == [0, 1]
    assert open_store(first).header.tokens == 0
    same_bits(open_store(merge_run(plan.folder)), open_store(second))


def test_a_missing_shard_is_refused_unless_it_may_be_missing(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    folders = sharded(plan, 3)
    shutil.rmtree(folders[1])
    with pytest.raises(FileFormatError, match=r"windows 1 are missing: there is no shard 001-of-003"):
        merge_run(plan.folder)
    found = open_store(merge_run(plan.folder, allow_missing=True)).header
    assert found.windows == (0, 2, 3)
    assert found.provenance["missing"]["windows"] == [[1, 1]]


def test_shards_of_other_settings_or_other_data_are_refused_by_what_differs(tmp_path: Path) -> None:
    (one,) = sharded(planned(tmp_path / "one"))
    for name, (data, settings) in {
        "weighting": (None, {"weighting": "target"}),
        "fingerprint": ([[5, 6, 7]] * 13, {}),
        "min_importance": (None, {"weighting": "target", "min_importance": 0.5}),
    }.items():
        (other,) = sharded(planned(tmp_path / name, data, **settings))
        with pytest.raises(FileFormatError, match=rf"cannot be added: settings\[.*{name}"):
            merge_stores([one, other], tmp_path / "sum", expected=None)
