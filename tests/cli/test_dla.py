import inspect
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from typer.testing import Result

import whence as library
from whence.cli import app, dla
from whence.cli.pictures import SUFFIXES
from whence.demo import dictionary_path, model_path
from whence.engine.granularity import Granularity
from whence.methods.direct import direct_logit_attribution
from whence.results import drawing

Whence = Callable[..., Result]
PROMPT = "The capital of the state containing Dallas is"


@cache
def model() -> library.Model:
    return library.Model.from_pretrained(model_path())


def options() -> dict[str, Any]:
    return {option.name: option for option in typer.main.get_command(app).commands["dla"].params}  # type: ignore[attr-defined]


def scores(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# ------------------------------------------------------------ in step with the library
def test_every_argument_of_the_library_is_an_option() -> None:
    renamed = {"input": "prompts", "targets": "target", "foils": "foil"}
    wanted = {renamed.get(name, name) for name in inspect.signature(direct_logit_attribution).parameters}
    assert wanted <= set(options())


@pytest.mark.parametrize("name", ["by", "accumulated", "centered", "bias", "fold_value_bias", "dictionary", "top"])
def test_defaults_are_those_of_the_library(name: str) -> None:
    assert options()[name].default == inspect.signature(direct_logit_attribution).parameters[name].default


def test_the_default_position_is_that_of_the_library() -> None:
    default = inspect.signature(direct_logit_attribution).parameters["position"].default
    assert dla.read_position(options()["position"].default) == default


def test_choices_are_those_of_the_library() -> None:
    parameters = inspect.signature(direct_logit_attribution).parameters
    assert get_args(Granularity) == dla.BY
    assert get_args(parameters["bias"].annotation) == dla.BIAS
    assert drawing.SUFFIXES == SUFFIXES


# ------------------------------------------------------------ numbers
@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((), {}),
        (("--target", " Austin", "--by", "head"), {"targets": " Austin", "by": "head"}),
        (("--target", " Austin", "--foil", " Boston"), {"targets": " Austin", "foils": " Boston"}),
        (("--target", " Austin", "--target", " Boston"), {"targets": [" Austin", " Boston"]}),
        (("--target", "id:7", "--position", "3"), {"targets": 7, "position": 3}),
        (("--by", "head,neuron", "--top", "3"), {"by": ("head", "neuron"), "top": 3}),
        (("--position", "all", "--by", "layer"), {"position": None, "by": "layer"}),
        (("--accumulated", "--centered"), {"accumulated": True, "centered": True}),
        (("--bias", "exclude", "--fold-value-bias"), {"bias": "exclude", "fold_value_bias": True}),
    ],
)
def test_json_holds_the_numbers_of_the_library(
    whence: Whence, arguments: tuple[str, ...], asked: dict[str, Any]
) -> None:
    found = scores(whence("dla", PROMPT, *arguments, "--json"))
    expected = library.dla(model(), PROMPT, **asked)
    assert found["keys"] == [str(key) for key in expected.keys]
    torch.testing.assert_close(torch.tensor(found["values"]), expected.values, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor(found["target"]), expected.target, rtol=0, atol=1e-5)


def test_several_prompts_are_one_batch(whence: Whence) -> None:
    prompts = [PROMPT, "The capital of the state containing Portland is"]
    found = scores(whence("dla", *prompts, "--json"))
    expected = library.dla(model(), prompts)
    torch.testing.assert_close(torch.tensor(found["values"]), expected.values, rtol=0, atol=1e-5)


def test_a_dictionary_is_read_from_its_folder(whence: Whence) -> None:
    folder = dictionary_path("transcoders")
    found = scores(whence("dla", PROMPT, "--by", "feature", "--dictionary", str(folder), "--top", "4", "--json"))
    expected = library.dla(model(), PROMPT, by="feature", dictionary=library.load_dictionary(folder), top=4)
    assert found["keys"] == [str(key) for key in expected.keys]


def test_a_dtype_is_the_models(whence: Whence) -> None:
    found = scores(whence("dla", PROMPT, "--dtype", "float64", "--device", "cpu", "--json"))
    assert (found["provenance"]["dtype"], found["provenance"]["device"]) == ("float64", "cpu")


# ------------------------------------------------------------ what is said where
def test_the_table_is_on_stdout_and_the_progress_on_stderr(whence: Whence) -> None:
    result = whence("dla", PROMPT, "--target", " Austin", "--by", "head", "--rows", "3")
    assert result.exit_code == 0
    assert "What wrote ' Austin'" in result.stdout
    assert "rest (18 others)" in result.stdout
    assert "remainder" in result.stdout
    assert "loading" not in result.stdout
    assert result.stderr.splitlines() == ["loading demo and checking it", "attributing 1 prompt in one forward pass"]


def test_words_that_the_model_does_not_know_are_a_warning(whence: Whence) -> None:
    result = whence("dla", "Zyzzyva is", "--json")
    assert "warning: the prompt has words that this model does not know; it reads them as <unk>" in result.stderr
    assert "warning" not in whence("dla", PROMPT, "--json").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", " Austn"), "' Austn'"),
        (("--target", " Austin Boston"), "is 2 tokens here"),
        (("--target", "id:99999"), "99999"),
        (("--foil", " Boston"), "foils cannot be combined with"),
        (("--by", "head,source_token"), "choose one of them"),
        (("--by", "expert"), "by='expert' has no meaning for LlamaForCausalLM"),
        (("--position", "99"), "position 99 is outside prompt 0, which has 9 tokens"),
        (("--accumulated", "--by", "head"), "accumulated=True is a running sum through the layers"),
        (("--by", "feature", "--dictionary", "nowhere"), "nowhere"),
    ],
)
def test_what_the_library_refuses_is_one_sentence_on_stderr(
    whence: Whence, arguments: tuple[str, ...], said: str
) -> None:
    result = whence("dla", PROMPT, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said in sentence
    assert "Traceback" not in result.stderr


# ------------------------------------------------------------ what is saved
def test_a_plot_is_a_picture_of_some_size(whence: Whence, tmp_path: Path) -> None:
    result = whence("dla", PROMPT, "--plot", str(tmp_path / "parts.png"), "--rows", "3")
    data = (tmp_path / "parts.png").read_bytes()
    assert result.exit_code == 0
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000
    assert f"saved the picture to {tmp_path / 'parts.png'}" in result.stderr


def test_without_matplotlib_a_plot_is_refused_before_the_work(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whence.cli.pictures.has_matplotlib", lambda: False)
    result = whence("dla", PROMPT, "--plot", str(tmp_path / "parts.png"))
    assert result.exit_code == 2
    assert "pip install 'whence[plot]'" in result.stderr
    assert "loading" not in result.stderr


def test_saved_scores_open_again(whence: Whence, tmp_path: Path) -> None:
    found = scores(whence("dla", PROMPT, "--by", "head", "--save", str(tmp_path / "run"), "--json"))
    assert library.Scores.load(tmp_path / "run").to_json() == found


def test_a_folder_of_something_else_is_not_overwritten(whence: Whence, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    result = whence("dla", PROMPT, "--save", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert (tmp_path / "thesis.tex").exists()
