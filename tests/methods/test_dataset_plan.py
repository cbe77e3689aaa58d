import json
from pathlib import Path
from typing import Any

import pytest

from dataset_runs import SETTINGS, TOKENS, documents, given, model, planned
from families import loaded
from whence.components.parameters import ParameterComponents
from whence.engine.dataset.named import sorted_out
from whence.errors import FileFormatError
from whence.methods.dataset import dataset_attributions, token_ids
from whence.methods.dataset_plan import PLAN, make_plan, read_plan
from whence.methods.dataset_settings import DatasetSettings
from whence.methods.dataset_shard import run_shard
from whence.methods.dataset_sizes import sizes_of
from whence.model.model import Model
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metrics": ()}, "give one or more of attr, attr_abs, mean_squared_attr, each once"),
        ({"metrics": ("attr", "mean")}, r"metrics=\('attr', 'mean'\); give one or more"),
        ({"metrics": ("attr", "attr")}, "each once"),
        ({"batch_size": 0}, "batch_size=0; it is 1 or more"),
        ({"sequence_length": -1}, "sequence_length=-1; it is 1 or more"),
        ({"fold": 0}, "fold=0; it is 1 or more"),
        ({"batches": 0}, "batches=0; it is 1 or more, or None for the whole data"),
        ({"min_importance": 1.0}, r"min_importance=1.0; importances lie in \[0, 1\]"),
        ({"min_importance": float("nan")}, "min_importance=nan"),
        ({"stop_at": 0.0}, "stop_at=0.0; it is a share above 0 and up to 1"),
        ({"stop_at": 0.9, "standard_errors": False}, "needs standard_errors=True and the metric attr"),
        ({"stop_at": 0.9, "metrics": ("attr_abs",)}, "needs standard_errors=True and the metric attr"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_with_what_they_may_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DatasetSettings(**settings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("norms", "held", "norms='held'; it is one of 'frozen', 'live'"),
        ("weighting", "all", "weighting='all'; it is one of 'none', 'source', 'target', 'both'"),
        ("compat", "spd", "compat='spd'; it is one of None, 'spd-413'"),
    ],
)
def test_words_that_are_no_choice_are_refused_with_the_choices(name: str, value: str, said: str) -> None:
    settings = DatasetSettings()
    object.__setattr__(settings, name, value)  # the types that are checked here alone would refuse it first
    with pytest.raises(ValueError, match=said):
        settings.__post_init__()


def test_a_plan_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    made = planned(tmp_path, stop_at=0.5, batches=3)
    read = read_plan(made.folder)
    for name in ("folder", "settings", "describes", "load", "windows", "batches", "tokens", "about", "sizes"):
        assert getattr(read, name) == getattr(made, name), name
    assert (read.windows, read.batches, read.rows.rows) == (2, 3, 6)
    assert [list(read.batches_of(window)) for window in range(2)] == [[0, 1], [2]]
    assert [list(read.of(shard, 3)) for shard in range(3)] == [[], [0], [1]]
    with pytest.raises(ValueError, match="shard 3 of 3: shards are counted from 0"):
        read.of(3, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said[: len(said) // 2], "is damaged: JSONDecodeError"),
        (lambda said: said.replace('"windows"', '"panes"'), "is damaged: KeyError, 'windows'"),
        (lambda said: said.replace('"fold"', '"pleat"'), "is damaged: TypeError"),
        (lambda said: said.replace('"fold": 2', '"fold": 0'), "is damaged: ValueError, fold=0"),
        (lambda said: said.replace("dataset_plan", "recipe"), "is no plan of a version this whence reads"),
        (lambda said: said.replace('"version": 1', '"version": 2'), "upgrade it"),
        (lambda said: "[]", "is damaged"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    folder = planned(tmp_path).folder
    (folder / PLAN).write_text(change((folder / PLAN).read_text()))
    with pytest.raises(FileFormatError, match=said):
        read_plan(folder)


def test_a_folder_without_a_plan_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"holds no plan\.json; `whence dataset plan` makes one"):
        read_plan(tmp_path)


def test_another_model_or_other_components_than_the_plan_s_are_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with pytest.raises(ValueError, match="was planned for another model or other components; load those, or plan anew"):
        run_shard(plan, loaded("llama"), given())
    with pytest.raises(ValueError, match="another model or other components"):
        run_shard(plan, model(), sorted_out("mlp.neuron"))


def test_components_that_do_not_fit_the_model_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"names 'mlp\.channel'; units of the model's own are attn\.head, mlp\.neuron"):
        sorted_out("mlp.channel")
    with pytest.raises(TypeError, match="components= holds a int; it takes parameter components"):
        sorted_out([3])
    parameters = given().parameters
    assert isinstance(parameters, ParameterComponents)
    with pytest.raises(ValueError, match="two sets of parameter components"):
        sorted_out([parameters, parameters])


def test_sizes_are_those_of_the_stored_blocks(tmp_path: Path) -> None:
    plan = planned(tmp_path, standard_errors=False)
    sizes = sizes_of(plan, model(), given())
    header = _result(tmp_path / "other").header
    pairs = [pair for pair in header.pairs if pair[1] != "bias"]  # constants, a column each
    numbers = {pair: len(header.targets[pair[0]].ids) * len(header.sources[pair[1]].ids) for pair in pairs}
    assert sizes["blocks"] == len(pairs)
    assert sizes["block_elements"] == sum(numbers.values())
    assert sizes["block_bytes"] == 8 * sum(numbers[pair] * len(header.of(pair)) for pair in pairs)


def _result(out: Path) -> DatasetAttributions:
    """The run of `planned` through the public function, without standard errors."""
    return dataset_attributions(
        model(),
        given().parameters,
        documents(),
        out=out,
        batch_size=SETTINGS.batch_size,
        sequence_length=SETTINGS.sequence_length,
        pack=False,
        output_tokens=TOKENS,
        standard_errors=False,
    )


def test_every_setting_of_the_function_is_in_the_store(tmp_path: Path) -> None:
    said = _result(tmp_path).settings
    assert said["output_tokens"] == [5, 9]
    assert (said["batch_size"], said["fold"], said["pack"], said["standard_errors"]) == (2, 8, False, False)
    assert said["metrics"] == list(METRICS)
    assert json.loads(json.dumps(said)) == dict(said)
    assert set(said) >= {"model", "components", "data", "norms", "weighting", "min_importance", "seed", "compat"}


def test_tokens_are_given_as_ids_or_as_text() -> None:
    demo = Model.from_pretrained(Path(__file__).parents[1] / "fixtures" / "small" / "model")
    assert demo.tokenizer is not None
    text = demo.token_text(17)
    assert token_ids(demo, [text, 3, 17]) == (3, 17)
    assert token_ids(demo, None) == ()
    with pytest.raises((ValueError, IndexError), match=str(demo.vocab_size)):
        token_ids(demo, [demo.vocab_size])


def test_a_plan_keeps_its_runs_apart(tmp_path: Path) -> None:
    one, other = (make_plan(model(), given(), documents(), tmp_path, SETTINGS) for _ in range(2))
    assert one.folder != other.folder
    assert one.describes == other.describes
