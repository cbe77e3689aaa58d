import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from typer.testing import Result

import whence as library
from whence.cli import app, graph, options
from whence.components.activation import Activation
from whence.demo import PROMPT, dictionary_path, model_path
from whence.methods.graph import Order
from whence.model.offload import Offload

Whence = Callable[..., Result]


def made(**options: Any) -> library.Graph:
    model = library.Model.from_pretrained(model_path())
    transcoders = library.load_dictionary(dictionary_path("transcoders"))
    return library.attribution_graph(model, transcoders, PROMPT, [" Austin"], **options)


def same(one: library.Graph, other: library.Graph) -> bool:
    return [*one.nodes] == [*other.nodes] and torch.equal(one.dense(), other.dense())


# ------------------------------------------------------------ in step with the library
def test_every_argument_of_the_library_that_a_shell_can_say_is_an_option() -> None:
    named = {option.name for option in typer.main.get_command(app).commands["graph"].params}  # type: ignore[attr-defined]
    unsaid = {"progress", "max_n_logits", "desired_logit_prob"}
    assert set(inspect.signature(library.attribution_graph).parameters) - unsaid <= named


def test_choices_are_those_of_the_library() -> None:
    parity = inspect.signature(library.attribution_graph).parameters["parity"].annotation
    assert get_args(Order) == options.ORDERS
    assert get_args(Offload) == graph.PLACES
    assert get_args(get_args(parity)[0]) == graph.CONVENTIONS


# ------------------------------------------------------------ whence graph
def test_what_is_saved_is_the_graph_of_the_library(run: Path) -> None:
    assert same(library.Graph.load(run), made())


def test_it_prints_edges_scores_certificate_and_what_to_do_next(run: Path, whence: Whence) -> None:
    said = (run.parent / "said.txt").read_text()
    assert re.search(r"3\.mlp\.feature:\d+@8 +output:\d+@8  ' Austin' +\+\d", said)
    assert "replacement 0." in said
    assert re.search(r"\d+ rows add up to \d\.\de-0[67] of the size of the parts, median .*, within the bound", said)
    assert f"Saved    {run}\n" in said
    (after,) = re.findall(r"^Next +whence (.*)$", said, re.MULTILINE)
    assert whence(*after.split()).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("--max-nodes", "40", "--order", "exact"), {"max_nodes": 40, "order": "exact"}),
        (("--parity", "circuit-tracer"), {"parity": "circuit-tracer"}),
        (("--nodes", "3.mlp.feature:357@8"), {"nodes": ["3.mlp.feature:357@8"]}),
        (("--position", "3"), {"position": 3}),
        (("--memory", "50MB", "--offload", "cpu"), {"memory": "50MB", "offload": "cpu"}),
    ],
)
def test_options_do_what_the_librarys_arguments_do(
    whence: Whence, tmp_path: Path, arguments: tuple[str, ...], asked: dict[str, Any]
) -> None:
    result = whence("graph", PROMPT, "--targets", " Austin", "-o", str(tmp_path / "run"), "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found, wanted = library.Graph.load(tmp_path / "run"), made(**asked)
    assert same(found, wanted)
    document = json.loads(result.stdout)
    assert (document["nodes"], document["saved"]) == (len(wanted.nodes), str(tmp_path / "run"))
    assert document["certificate"]["worst"] <= document["certificate"]["bound"]


def test_pruning_keeps_what_the_library_keeps(whence: Whence, run: Path, tmp_path: Path) -> None:
    result = whence("graph", PROMPT, "--targets", " Austin", "--prune", "0.6/0.9", "-o", str(tmp_path / "small"))
    assert result.exit_code == 0, result.stderr
    assert same(library.Graph.load(tmp_path / "small"), library.Graph.load(run).prune(0.6, 0.9))


def test_without_a_folder_it_says_that_nothing_was_saved(whence: Whence) -> None:
    assert "Saved    nowhere; add -o FOLDER" in whence("graph", "The actor sings", "--rows", "3").stdout


def test_tokens_can_be_numbers_beside_words(whence: Whence) -> None:
    found = json.loads(whence("graph", PROMPT, "--targets", "id:7", "--targets", " Austin", "--json").stdout)
    assert [target["index"] for target in found["targets"]] == [7, 135]


def test_neurons_stand_in_for_a_dictionary(whence: Whence, tmp_path: Path) -> None:
    neurons = ("--dictionary", "none", "--gate", "frozen", "--max-nodes", "9")
    result = whence("graph", PROMPT, *neurons, "--json", "-o", str(tmp_path / "run"))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["provenance"]["dictionary"] == {"kind": "neurons", "gate": "frozen"}
    assert len(library.Graph.load(tmp_path / "run").nodes.of("mlp.neuron")) == 9
    assert whence("verify", str(tmp_path / "run"), "-k", "5").exit_code == 0


def test_the_demo_has_more_dictionaries_by_name(whence: Whence) -> None:
    found = json.loads(whence("graph", PROMPT, "--dictionary", "cross_layer_transcoder", "--json").stdout)
    assert found["provenance"]["dictionary"]["source"] == str(dictionary_path("cross_layer_transcoder"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gate", "frozen"), "it needs --dictionary none"),
        (("--model", "gpt2"), "or none for its own MLP neurons"),
        (("--dictionary", "sae_resid_post"), "holds SAEs of resid_post"),
        (("--dictionary", "./no"), "there is no folder './no'"),
        (("--shard", "4/4"), "'4/4' is no I/N; 0/4 is the first of four parts"),
        (("--shard", "0/2"), "it needs -o and no --prune"),
        (("--prune", "2"), "'2' is no NODES/EDGES"),
        (("--memory", "lots"), "memory='lots'; it is a positive number of bytes"),
        (("--memory", "5"), "is too little"),
        (("--targets", "foobar"), "'foobar' is not in the vocabulary"),
        (("--nodes", "1.mlp.feature:3@0"), "1.mlp.feature:3@0 is not an active feature of this prompt"),
        (("--nodes", "1.mpl"), "Did you mean '1.mlp'?"),
        (("--position", "7"), "position 7 is outside"),
        (("--offload", "gpu"), "did you mean 'cpu'?"),
        (("--order", "random"), "'random' is not known; it is one of influence, exact"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(whence: Whence, arguments: tuple[str, ...], said: str) -> None:
    result = whence("graph", "The actor", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert said in sentence


def test_a_folder_of_something_else_is_left_alone(whence: Whence, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = whence("graph", PROMPT, "-o", str(tmp_path))
    assert result.exit_code == 2
    assert "exists and is not a whence result" in result.stderr
    assert "loading" not in result.stderr


def test_a_dictionary_that_does_not_fit_is_refused_with_both_shapes(whence: Whence, tmp_path: Path) -> None:
    tensors = torch.ones(6, 4), torch.ones(6), torch.ones(6, 4), torch.ones(4)
    library.save_dictionary(tmp_path / "other", library.Transcoder(0, *tensors, Activation("relu")))
    for command in ("graph", "plan", "intervene"):
        change = ("--ablate", "0.mlp.feature:1") if command == "intervene" else ()
        found = whence(command, PROMPT, "--dictionary", str(tmp_path / "other"), *change)
        assert (found.exit_code, found.stdout) == (2, "")
        assert "(6, 4)" in found.stderr
        assert "(6, 128)" in found.stderr
