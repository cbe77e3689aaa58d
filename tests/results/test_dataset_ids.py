from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from whence.errors import FileFormatError
from whence.results.dataset_ids import RunId, find_run, parse_run_id

RUN = RunId("lab", "my-models.v2", "s-1a2b3c4d")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WHENCE_PROJECT", "WHENCE_RUNS", "SPD_OUT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "text",
    [
        "lab/my-models.v2/s-1a2b3c4d",
        "lab/my-models.v2/runs/s-1a2b3c4d",
        "wandb:lab/my-models.v2/s-1a2b3c4d",
        "wandb:lab/my-models.v2/runs/s-1a2b3c4d",
        "https://wandb.ai/lab/my-models.v2/runs/s-1a2b3c4d",
        "https://wandb.ai/lab/my-models.v2/runs/s-1a2b3c4d/",
        "https://wandb.ai/lab/my-models.v2/runs/s-1a2b3c4d/workspace?nw=user#x",
        "http://www.wandb.ai/lab/my-models.v2/runs/s-1a2b3c4d?nw=user",
        "  lab/my-models.v2/s-1a2b3c4d\n",
    ],
)
def test_every_form_of_an_id_is_read(text: str) -> None:
    assert parse_run_id(text) == RUN


@pytest.mark.parametrize("id", ["1a2b3c4d", "t-1a2b3c4d", "9-abcdefgh"])
def test_ids_of_other_kinds_of_runs_are_read_in_their_long_form(id: str) -> None:
    assert parse_run_id(f"lab/models/{id}").id == id


@given(some.from_regex(r"(?:[a-z0-9]-)?[a-z0-9]{8}", fullmatch=True))
def test_a_printed_id_is_read_back(id: str) -> None:
    run = RunId("lab", "models", id)

    assert parse_run_id(str(run)) == run


def test_a_short_id_is_of_the_default_project(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_run_id("s-1a2b3c4d", "lab/my-models.v2") == RUN

    monkeypatch.setenv("WHENCE_PROJECT", "lab/my-models.v2")
    assert parse_run_id("s-1a2b3c4d") == RUN
    assert parse_run_id("s-1a2b3c4d", "other/one") == RunId("other", "one", "s-1a2b3c4d")
    assert parse_run_id("other/one/s-1a2b3c4d").project == "one"


def test_a_short_id_without_a_project_says_how_to_set_one() -> None:
    with pytest.raises(ValueError, match="Set WHENCE_PROJECT=entity/project"):
        parse_run_id("s-1a2b3c4d")
    with pytest.raises(ValueError, match="'lab' is not of the form entity/project"):
        parse_run_id("s-1a2b3c4d", "lab")


@pytest.mark.parametrize(
    "text",
    [
        *("", "s-1a2b3c4", "S-1A2B3C4D", "s-1a2b3c4d5", "1a2b3c4d", "t-1a2b3c4d", "models/s-1a2b3c4d"),
        *("lab/models/run/s-1a2b3c4d", "lab/models/runs/", "lab/models/runs/s_1a2b3c4d", "wandb:s-1a2b3c4d"),
        *("https://wandb.ai/lab/models/s-1a2b3c4d", "https://example.org/lab/models/runs/s-1a2b3c4d"),
        *("https://wandb.ai.example.org/lab/models/runs/s-1a2b3c4d", "lab/models/../s-1a2b3c4d"),
    ],
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"s-xxxxxxxx .*entity/project/runs/id.*wandb:.*https://wandb.ai"):
        parse_run_id(text, "lab/models")


def test_a_run_is_found_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dataset_attributions" / "s-1a2b3c4d"
    folder.mkdir(parents=True)

    assert find_run(RUN, tmp_path) == folder
    monkeypatch.setenv("WHENCE_RUNS", str(tmp_path))
    assert find_run(RUN) == folder


def test_the_newest_file_of_the_other_layout_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_OUT_DIR", str(tmp_path))
    folder = tmp_path / "dataset_attributions" / "s-1a2b3c4d"
    for name in ("da-20260101_000000", "da-20260102_000000", "da-20260103_000000", "da-timing-1"):
        (folder / name).mkdir(parents=True)
        if "03" not in name:
            (folder / name / "dataset_attributions.pt").touch()

    assert find_run(RUN, tmp_path / "none").parent.name == "da-20260102_000000"


def test_the_places_that_were_looked_at_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_OUT_DIR", str(tmp_path / "theirs"))

    with pytest.raises(FileFormatError, match=r"ours/dataset_attributions/s-1a2b3c4d or .*theirs.*da-\*"):
        find_run(RUN, tmp_path / "ours")
