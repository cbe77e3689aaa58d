import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

import whence as library
from whence.cli import intervene
from whence.demo import PROMPT, dictionary_path, model_path

Whence = Callable[..., Result]
MIAMI = "The capital of the state containing Miami is"
EVERY = {"attention": True, "norms": True, "layers": range(4)}


@pytest.mark.parametrize(
    ("arguments", "changes", "held"),
    [
        (("--ablate", "3.mlp"), [library.ablate("3.mlp")], {}),
        (("--set", "2.mlp.neuron:7@5=-0.5"), [library.set_value("2.mlp.neuron:7@5", -0.5)], {}),
        (("--steer", "3.mlp.feature:357=+2"), [library.steer("3.mlp.feature:357", add=2.0)], {}),
        (("--steer", "1.attn.head:0=-2"), [library.steer("1.attn.head:0", add=-2.0)], {}),
        (("--steer", "3.mlp.feature:357=*3"), [library.steer("3.mlp.feature:357", scale=3.0)], {}),
        (("--patch", f"1.attn.head:0={MIAMI}"), [library.patch("1.attn.head:0", MIAMI)], {}),
        (
            ("--ablate", "0.mlp@7", "--ablate", "2.mlp", "--freeze", "attention,norms"),
            [library.ablate("0.mlp@7"), library.ablate("2.mlp")],
            {"attention": True, "norms": True},
        ),
        (("--ablate", "embed@7", "--freeze", "attention,norms,layers"), [library.ablate("embed@7")], EVERY),
    ],
)
def test_the_numbers_are_those_of_the_library(
    whence: Whence, arguments: tuple[str, ...], changes: list[library.Intervention], held: dict[str, Any]
) -> None:
    model = library.Model.from_pretrained(model_path())
    transcoders = library.load_dictionary(dictionary_path("transcoders"))
    outcome = library.intervene(model, PROMPT, changes, dictionary=transcoders, freeze=library.Freeze(**held))
    result = whence("intervene", PROMPT, *arguments, "--targets", " Austin", "--targets", "id:7", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["interventions"] == list(map(repr, changes))
    for row, token in zip(found["tokens"], (135, 7), strict=True):
        for side, logits in (("before", outcome.clean_logits[0, 0]), ("after", outcome.logits[0, 0])):
            assert row[f"logit_{side}"] == pytest.approx(logits[token].item(), abs=1e-5)
            assert row[f"probability_{side}"] == pytest.approx(logits.softmax(-1)[token].item(), abs=1e-6)


def test_the_most_likely_tokens_of_both_runs_are_shown(whence: Whence) -> None:
    result = whence("intervene", PROMPT, "--patch", f"embed={MIAMI}")
    assert result.exit_code == 0, result.stderr
    assert "' Austin'" in result.stdout
    assert "' Tallahassee'" in result.stdout


def test_it_writes_on_with_and_without(whence: Whence) -> None:
    arguments = ("intervene", PROMPT, "--patch", f"embed={MIAMI}", "--generate", "1")
    said = whence(*arguments).stdout.splitlines()
    assert said[-2] == f"before   <bos> {PROMPT} Austin"
    assert said[-1] == f"after    <bos> {PROMPT} Tallahassee"
    assert json.loads(whence(*arguments, "--json").stdout)["generated"]["after"].endswith("Tallahassee")


def test_probabilities_too_small_for_four_digits_are_still_told_apart() -> None:
    assert [intervene._chance(value) for value in (0.25, 1.23e-6, 0.0)] == ["0.2500", "1.2e-06", "0.0000"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is nothing to change; give --ablate, --set, --steer or --patch"),
        (("--set", "3.mlp"), "'3.mlp' is no KEY=VALUE"),
        (("--set", "3.mlp=a"), "'a' is no number"),
        (("--steer", "3.mlp=2"), "'2' is neither +X (add) nor *X (multiply)"),
        (("--steer", "3.mlp=*a"), "'a' is no number"),
        (("--patch", "3.mlp="), "'3.mlp=' is no KEY=PROMPT"),
        (("--patch", "3.mlp=The"), "position 3 is to be patched, and the source prompt has 2 tokens"),
        (("--ablate", "9.mlp"), "layer 9 does not exist: the model has layers 0 to 3"),
        (("--ablate", "3.mpl"), "Did you mean '3.mlp'?"),
        (("--ablate", "3.mlp@70"), "position 70 is outside the prompt"),
        (("--ablate", "3.resid_post.feature:1"), "load the dictionary of resid_post"),
        (("--ablate", "3.mlp.feature:1", "--dictionary", "none"), "belongs to a dictionary that was not given"),
        (("--freeze", "attention,norm"), "'norm' is not known; did you mean 'norms'?"),
        (("--ablate", "3.mlp", "--targets", "foobar"), "'foobar' is not in the vocabulary"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(whence: Whence, arguments: tuple[str, ...], said: str) -> None:
    result = whence("intervene", "The actor sings", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert said in sentence
