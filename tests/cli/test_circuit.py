import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

import whence as library
from whence.cli import app, circuit_eval, circuit_find, circuit_options
from whence.demo.grammar import AGREEMENT_KINDS
from whence.demo.pairs import agreement_pairs
from whence.engine.ablations.scoring import Ablation, Embeddings, Errors
from whence.engine.circuits import baseline, choosing
from whence.engine.circuits.effects import Method, Rule
from whence.methods import circuit_evaluation
from whence.methods.circuit_object import Circuit

Whence = Callable[..., Result]
FEW = ("--agreement", "orc", "--limit", "4")
MLP = ("--dictionary", "sae_mlp_out")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small circuit, with what `whence circuit` said beside it."""
    path = tmp_path_factory.mktemp("runs") / "orc"
    asked = ("--aggregate", "none", "--node-threshold", "0.5", "--html", f"{path}.html", "--plot", f"{path}.svg")
    result = CliRunner().invoke(app, ["circuit", *FEW, *MLP, *asked, "-o", str(path)], prog_name="whence")
    assert result.exit_code == 0, result.stderr
    path.with_suffix(".txt").write_text(result.stdout, encoding="utf-8")
    return path


def made(**options: Any) -> Circuit:
    model, units = model_and_units()
    return library.feature_circuit(model, units, agreement_pairs(model, "orc", 4), **options)


def model_and_units() -> tuple[library.Model, list[Any]]:
    model = library.Model.from_pretrained(library.demo.model_path())
    return model, [library.load_dictionary(library.demo.dictionary_path("sae_mlp_out"))]


def same(one: Any, other: Any) -> bool:
    whole = [*one.nodes] == [*other.nodes] and torch.equal(one.effects, other.effects)
    return whole and all(torch.equal(*pair) for pair in zip(one.weights.coo(), other.weights.coo(), strict=True))


def options_of(name: str) -> set[str]:
    command = typer.main.get_command(app).commands["circuit"].commands[name]  # type: ignore[attr-defined]
    return {option.name for option in command.params}


# ------------------------------------------------------------ in step with the library
def test_every_argument_of_the_library_that_a_shell_can_say_is_an_option() -> None:
    unsaid = {"dictionaries", "clean", "patch", "metric", "progress"}  # the first four are --dictionary and --pairs
    assert set(inspect.signature(library.feature_circuit).parameters) - unsaid <= options_of("find")
    unsaid = {"circuit", "dictionaries", "metric", "progress", "sizes"}
    assert set(inspect.signature(circuit_evaluation.sweep).parameters) - unsaid <= options_of("eval")


def test_choices_are_those_of_the_library() -> None:
    asked = inspect.signature(library.feature_circuit).parameters
    assert (get_args(Method), get_args(Rule), baseline.KINDS) == (
        circuit_find.METHODS,
        circuit_find.RULES,
        circuit_find.BASELINES,
    )
    assert get_args(asked["aggregate"].annotation) == circuit_find.AGGREGATES
    assert get_args(asked["gate"].annotation) == circuit_find.GATES
    assert (get_args(Ablation), get_args(Errors)) == (circuit_eval.ABLATIONS, circuit_eval.ERRORS)
    assert get_args(Embeddings) == circuit_eval.EMBEDDINGS
    assert (choosing.NATIVE, tuple(AGREEMENT_KINDS)) == (circuit_options.NATIVE, circuit_options.KINDS)


def test_defaults_are_those_of_the_library() -> None:
    for asked, command in (
        (library.feature_circuit, circuit_find.find),
        (circuit_evaluation.sweep, circuit_eval.evaluate),
    ):
        own = inspect.signature(command).parameters
        shared = {name: one for name, one in inspect.signature(asked).parameters.items() if name in own}
        keywords = {name: one.default for name, one in shared.items() if one.kind is one.KEYWORD_ONLY}
        assert keywords == {name: own[name].default for name in keywords}


@pytest.mark.parametrize("name", ["find", "eval", "stability", "diff", "export", "import"])
def test_every_command_and_option_says_what_it_does(whence: Whence, name: str) -> None:
    command = typer.main.get_command(app).commands["circuit"].commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert [option.name for option in command.params if not option.help] == []
    assert f"Usage: whence circuit {name}" in whence("circuit", name, "--help").stdout


# ------------------------------------------------------------ whence circuit
def test_what_is_saved_is_the_circuit_of_the_library(found: Path) -> None:
    assert same(Circuit.load(found), made(aggregate="none", node_threshold=0.5))


def test_it_prints_nodes_totals_files_and_what_to_do_next(found: Path, whence: Whence) -> None:
    said = found.with_suffix(".txt").read_text()
    assert re.search(r"3\.mlp_out\.feature:\d+@6  \(verb\) +\+\d", said)
    assert "mean over 4 examples" in said
    assert f"Saved    {found}\nPage     {found}.html\nPicture  {found}.svg\n" in said
    assert "<svg" in Path(f"{found}.svg").read_text()
    assert "<html" in Path(f"{found}.html").read_text()
    (after,) = re.findall(r"^Next +whence (.*)$", said, re.MULTILINE)
    assert after.endswith("--agreement orc --held-out")
    assert whence(*after.split(), "--limit", "2").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("--method", "gradient", "--no-edges"), {"method": "gradient", "edges": False}),
        (("--steps", "2", "--rule", "left", "--no-edges"), {"steps": 2, "rule": "left", "edges": False}),
        (("--baseline", "zero", "--method", "gradient"), {"baseline": "zero", "method": "gradient"}),
        (
            ("--edge-gradient", "integrated_gradients", "--steps", "2"),
            {"edge_gradient": "integrated_gradients", "steps": 2},
        ),
        (("--gate", "per_example", "--edge-threshold", "0.3"), {"gate": "per_example", "edge_threshold": 0.3}),
    ],
)  # fmt: skip
def test_options_do_what_the_librarys_arguments_do(
    whence: Whence, tmp_path: Path, arguments: tuple[str, ...], asked: dict[str, Any]
) -> None:
    result = whence("circuit", "find", *FEW, *MLP, "-o", str(tmp_path / "run"), "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    wanted = made(**asked)
    assert same(Circuit.load(tmp_path / "run"), wanted)
    document = json.loads(result.stdout)
    assert (document["nodes"], document["saved"]) == (len(wanted.nodes) - 1, str(tmp_path / "run"))


def test_pairs_come_from_a_file_with_what_is_left_out_counted(whence: Whence, tmp_path: Path) -> None:
    model, _ = model_and_units()
    agreement_pairs(model, "orc", 4).to_json_lines(file := tmp_path / "pairs.json", model)
    with file.open("a") as out:
        unusable = {"patch_prefix": "The pilots", "patch_answer": " are", "case": ""}
        out.write(json.dumps({"clean_prefix": "The pilot", "clean_answer": " abracadabra"} | unusable))
    pairs = ("--pairs", str(file), "--slots", "rc")
    result = whence("circuit", *pairs, *MLP, "--method", "gradient", "-o", str(tmp_path / "run"))
    assert result.exit_code == 0, result.stderr
    assert "pairs.json: 1 pair left out: " in result.stderr
    assert "over 4 pairs" in result.stderr
    assert same(Circuit.load(tmp_path / "run"), made(method="gradient"))
    assert f"eval {tmp_path}/run {' '.join(pairs)}\n" in result.stdout


def test_the_models_own_units_are_named_like_dictionaries(whence: Whence) -> None:
    asked = ("--dictionary", "attn.head", "--dictionary", "mlp", "--method", "gradient", "--no-edges", "--json")
    result = whence("circuit", *FEW, *asked, "--node-threshold", "0.2")
    effects = json.loads(result.stdout)["effects"]
    assert {key.rpartition(":")[0] or key.partition(".")[2] for key in effects} >= {"3.attn.head", "mlp"}


def test_names_of_features_are_shown(whence: Whence, tmp_path: Path) -> None:
    strongest = next(iter(json.loads(whence("circuit", *FEW, *MLP, "--no-edges", "--json").stdout)["effects"]))
    (names := tmp_path / "names.jsonl").write_text(json.dumps({"key": strongest, "name": "number of the subject"}))
    result = whence("circuit", *FEW, *MLP, "--no-edges", "--annotations", str(names))
    assert "number of the subject" in result.stdout
    assert "Saved    nowhere; add -o FOLDER" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing command. See whence circuit --help."),
        (("evla",), "Did you mean 'eval'?"),
        (("--limit", "3"), "pairs come from one place: --pairs FILE, --agreement KIND"),
        (("--agreement", "orc", "--relative-clauses"), "pairs come from one place"),
        (("--agreement", "orcs"), "'orcs' is not known; did you mean 'orc'?"),
        (("--agreement", "orc", "--slots", "rc"), "it needs --pairs FILE"),
        (("--pairs", "x", "--held-out"), "leave --held-out away"),
        (("--pairs", "no.json"), "no.json: No such file"),
        (("--agreement", "orc", "--model", "gpt2"), "it needs --dictionary REF"),
        (("--agreement", "orc", "--dictionary", "./no"), "there is no folder './no'"),
        (("--relative-clauses", "--limit", "9999999"), "asked for 9999999 pairs"),
        (("--agreement", "simple", "--held-out"), "leave held_out False"),
        (("eval", "no", *FEW), "no"),
        (("eval", "no", *FEW, "--plot", "x.png"), "it needs --sweep or --thresholds"),
        (("eval", "no", *FEW, "--thresholds", "a,b"), "'a,b' is no list of sizes"),
        (("import", "x.pt"), "is a pickle"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(whence: Whence, arguments: tuple[str, ...], said: str) -> None:
    result = whence("circuit", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert said in sentence


# ------------------------------------------------------------ whence circuit eval
def test_scores_are_those_of_the_library(whence: Whence, found: Path) -> None:
    asked = ("--agreement", "orc", "--limit", "6", "--held-out", "--ablation", "zero", "--errors", "keep", "--json")
    result = whence("circuit", "eval", str(found), *asked, "--node-threshold", "1")
    assert result.exit_code == 0, result.stderr
    said, (model, units) = json.loads(result.stdout), model_and_units()
    pairs, part = agreement_pairs(model, "orc", 6, held_out=True), Circuit.load(found).threshold(node=1.0)
    for score in (part.faithfulness, part.completeness):
        wanted = score(model, units, pairs, ablation="zero", errors="keep")
        assert said[wanted.kind]["value"] == pytest.approx(wanted.value, abs=1e-5)
        assert (said[wanted.kind]["nodes"], said[wanted.kind]["share"]) == (wanted.nodes, wanted.share)


def test_a_line_says_each_score(whence: Whence, found: Path) -> None:
    said = whence("circuit", "eval", str(found), *FEW, "--edges").stdout
    assert re.search(r"^faithfulness -?\d\.\d+ \(.*\) of \d+ nodes, \d+ edges: .* 4 examples\ncompleteness ", said)


def test_a_sweep_is_a_table_with_areas_and_a_picture(whence: Whence, found: Path, tmp_path: Path) -> None:
    result = whence("circuit", "eval", str(found), *FEW, "--sweep", "--plot", str(tmp_path / "sweep.svg"))
    assert result.exit_code == 0, result.stderr
    assert re.search(r"Areas +CPR \d\.\d+, CMD \d\.\d+, CPR log ", result.stdout)
    assert f"Picture  {tmp_path}/sweep.svg\n" in result.stdout
    assert "<svg" in (tmp_path / "sweep.svg").read_text()


def test_thresholds_are_tried_in_turn(whence: Whence, found: Path) -> None:
    result = whence("circuit", "eval", str(found), *FEW, "--thresholds", "2,0.5", "--json")
    few, many = json.loads(result.stdout)["parts"]
    assert (few["threshold"], many["threshold"]) == (2.0, 0.5)
    assert few["faithfulness"]["nodes"] < many["faithfulness"]["nodes"]
    assert few["faithfulness"]["value"] < many["faithfulness"]["value"]


def test_another_dictionary_than_the_circuits_is_refused(whence: Whence, found: Path) -> None:
    result = whence("circuit", "eval", str(found), *FEW, "--model", "demo", "--dictionary", "sae_attn_out")
    assert result.exit_code == 2
    assert "is at no site of these dictionaries" in result.stderr


# ------------------------------------------------------------ saved circuits
def test_stability_is_that_of_the_library(whence: Whence, found: Path) -> None:
    asked = ("circuit", "stability", str(found), "--resamples", "50", "--seed", "3")
    wanted = Circuit.load(found).stability(50, 3)
    assert str(wanted) in " ".join(whence(*asked).stdout.split())
    said = json.loads(whence(*asked, "--json", "--rows", "2").stdout)
    assert tuple(said["edges_jaccard"]) == wanted.edge_jaccard
    assert len(said["nodes"]) == 2
    edges = [str(wanted.ends(edge)) for edge in wanted.edge.strongest(2)]
    assert list(said["edges"]) == edges
    numbers = dict(zip(("weight", "low", "high", "kept"), wanted.edge.of(wanted.edge.strongest(1)[0]), strict=True))
    assert said["edges"][edges[0]] == numbers
    assert edges[0] in whence(*asked, "--rows", "1").stdout


def test_stability_is_of_the_circuits_own_rule_or_refused(whence: Whence, found: Path, tmp_path: Path) -> None:
    circuit = Circuit.load(found)
    top, gated = (str(tmp_path / name) for name in ("top", "gated"))
    circuit.top(3).save(top)
    replace(circuit, provenance=circuit.provenance | {"gate": "per_example"}).save(gated)
    said = json.loads(whence("circuit", "stability", top, "--resamples", "20", "--json").stdout)
    assert said["top"] == 3
    result = whence("circuit", "stability", gated)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "thresholds on means" in result.stderr
    assert whence("circuit", "stability", gated, "--node-threshold", "0.5", "--resamples", "20").exit_code == 0


def test_one_pair_is_no_pairs(whence: Whence, found: Path) -> None:
    result = whence("circuit", "eval", str(found), "--agreement", "orc", "--limit", "1")
    assert "on 1 pair\n" in result.stderr
    assert result.stdout.endswith("; 1 example\n")


def test_a_circuit_that_does_not_say_its_dictionaries_needs_them(whence: Whence, found: Path, tmp_path: Path) -> None:
    circuit = Circuit.load(found)
    about = {name: said for name, said in circuit.provenance.items() if name != "dictionaries"}
    run = replace(circuit, provenance=about).save(tmp_path / "unnamed")
    result = whence("circuit", "eval", str(run), *FEW)
    assert result.exit_code == 2
    assert "the result does not say with which dictionaries it was made; give --dictionary." in result.stderr


def test_the_difference_of_a_circuit_and_itself_is_nothing(whence: Whence, found: Path, tmp_path: Path) -> None:
    result = whence("circuit", "diff", str(found), str(found), "-o", str(tmp_path / "none"), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["total"] == 0
    assert not Circuit.load(tmp_path / "none").effects.any()


@pytest.mark.parametrize(("to", "suffix"), [("html", "html"), ("svg", "svg"), ("edges", "edges.csv")])
def test_export_writes_beside_the_run(whence: Whence, found: Path, to: str, suffix: str) -> None:
    (path := Path(f"{found}.{suffix}")).unlink(missing_ok=True)
    result = whence("circuit", "export", str(found), "--to", to, "--node-threshold", "1")
    assert (result.exit_code, result.stdout) == (0, f"{path}\n"), result.stderr
    assert path.stat().st_size


def test_an_edge_file_of_mib_comes_in_and_goes_out(whence: Whence, tmp_path: Path) -> None:
    names = [f"input->a0.h0<{end}>" for end in "qkv"]
    names += ["input->m0", "input->logits", "a0.h0->m0", "a0.h0->logits", "m0->logits"]
    edges = {name: {"score": place / 4 - 1, "in_graph": place > 5} for place, name in enumerate(names)}
    nodes = {name: {"in_graph": True} for name in ("input", "a0.h0", "m0", "logits")}
    cfg = {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 4}
    (given := tmp_path / "given.json").write_text(json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}))
    run, back = str(tmp_path / "run"), tmp_path / "back.json"
    result = whence("circuit", "import", str(given), "-o", run, "--json")
    assert (result.exit_code, json.loads(result.stdout)["saved"]) == (0, run), result.stderr
    cut = whence("circuit", "export", run, "--to", "mib", "-o", str(back), "--edge-threshold", "0.6")
    assert cut.exit_code == 0, cut.stderr
    wanted = {name: said | {"in_graph": abs(said["score"]) > 0.6} for name, said in edges.items()}
    assert json.loads(back.read_text())["edges"] == wanted


def test_features_are_no_edges_of_mib(whence: Whence, found: Path) -> None:
    result = whence("circuit", "export", str(found), "--to", "mib", "-o", str(found.with_name("no.json")))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert not found.with_name("no.json").exists()
