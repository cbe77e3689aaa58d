from pathlib import Path
from typing import Any

import pytest

import whence.demo
from dataset_runs import model, planned
from whence.errors import FileFormatError
from whence.methods.dataset import dataset_attributions, token_ids
from whence.methods.dataset_settings import DatasetSettings
from whence.model.model import Model


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("batch_size", 2.5, r"batch_size=2\.5; it is a whole number"),
        ("batch_size", "4", "batch_size='4'; it is a whole number"),
        ("fold", True, "fold=True; it is a whole number"),
        ("sequence_length", None, "sequence_length=None; it is a whole number"),
        ("batches", False, "batches=False; it is a whole number or None"),
        ("seed", "a", "seed='a'; it is a whole number or None"),
        ("pack", 1, "pack=1; it is True or False"),
        ("standard_errors", "no", "standard_errors='no'; it is True or False"),
        ("min_importance", "0.1", r"min_importance='0\.1'; it is a number"),
        ("stop_at", True, "stop_at=True; it is a number or None"),
        ("metrics", "attr", "metrics='attr'; it is a tuple of words"),
        ("output_tokens", [5], r"output_tokens=\[5\]; it is a tuple of token ids"),
        ("output_tokens", (5, " a"), "output_tokens=' a'; it is a tuple of token ids"),
    ],
)
def test_a_setting_of_another_type_is_refused_by_name_and_value(name: str, value: object, said: str) -> None:
    settings = DatasetSettings()
    object.__setattr__(settings, name, value)  # the types that are checked here alone would refuse it first
    with pytest.raises(TypeError, match=said):
        settings.__post_init__()


def test_a_least_importance_without_a_side_that_counts_by_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"min_importance=0\.5 with weighting='none' would do nothing"):
        DatasetSettings(min_importance=0.5)
    assert DatasetSettings(min_importance=0.5, weighting="target").options.least == 0.5


def test_one_metric_and_one_token_may_be_named_without_a_list(tmp_path: Path) -> None:
    demo = Model.from_pretrained(whence.demo.model_path())
    assert token_ids(demo, " Austin") == token_ids(demo, [" Austin"])
    asked: dict[str, Any] = {"out": tmp_path, "sequence_length": 6, "batches": 1, "batch_size": 1}
    found = dataset_attributions(model(), "attn", [[5, 6, 7]], metrics="attr", **asked)
    assert found.settings["metrics"] == ["attr"]


@pytest.mark.parametrize("below", ["", "runs/stories"])
def test_a_file_where_the_folder_of_runs_should_be_is_refused(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(FileFormatError, match=r"cannot be a folder of runs: a file is in its way\. Choose another"):
        planned(file / below)
    assert file.read_text() == "kept"
