import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from typer.testing import Result

import whence as library
from whence.cli import app, dataset_asking, dataset_options, dataset_run, dataset_wanted
from whence.cluster.run_plan import ENGINES
from whence.components.parameter_files import load_components
from whence.engine.dataset import named
from whence.engine.dataset.weighing import Weighting
from whence.methods.dataset import dataset_attributions
from whence.methods.dataset_plan import read_plan
from whence.methods.dataset_settings import Norms
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS
from whence.results.dataset_normalise import NORMALISERS, Metric
from whence.results.dataset_ranking import SIGNS
from whence.results.dataset_sites import HOW

Whence = Callable[..., Result]
FEW = ("--data", "demo:8", "--no-pack", "--sequence-length", "16", "--batch-size", "2", "--fold", "1")


def options_of(name: str) -> set[str]:
    command = typer.main.get_command(app).commands["dataset"].commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert [option.name for option in command.params if not option.help] == []
    return {option.name for option in command.params}


def answer(whence: Whence, *arguments: Any) -> Any:
    result = whence("dataset", *map(str, arguments), "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# ------------------------------------------------------------ in step with the library
def test_every_argument_of_the_library_is_an_option_of_run_and_of_plan() -> None:
    named_otherwise = {"out", "metrics", "output_tokens", "progress"}  # -o, --metric, --output-token
    wanted = set(inspect.signature(dataset_attributions).parameters) - named_otherwise
    for command in ("run", "plan"):
        assert wanted | {"output", "metric", "output_token"} <= options_of(command)


@pytest.mark.parametrize("query", ["top_sources", "top_targets", "between", "block", "layer_matrix", "stability"])
def test_every_argument_of_a_query_is_an_option(query: str) -> None:
    asked = set(inspect.signature(getattr(DatasetAttributions, query)).parameters) - {"self", "sites"}
    command = "layers" if query == "layer_matrix" else query.replace("_", "-")
    assert asked <= options_of(command)


def test_choices_and_defaults_are_those_of_the_library() -> None:
    assert (get_args(Metric), SIGNS, NORMALISERS, HOW) == (
        dataset_options.METRICS,
        dataset_options.SIGNS,
        dataset_options.NORMALISERS,
        dataset_options.HOW,
    )
    assert (named.NATIVE, METRICS) == (dataset_wanted.NATIVE, dataset_wanted.METRICS)
    assert (get_args(Norms), get_args(Weighting)) == (dataset_wanted.NORMS, dataset_wanted.WEIGHTINGS)
    assert ENGINES == dataset_run.ENGINES
    theirs = inspect.signature(dataset_attributions).parameters
    for name, mine in inspect.signature(dataset_wanted.Wanted).parameters.items():
        if name in theirs and name not in {"model", "components", "data", "sequence_length"}:
            assert mine.default == theirs[name].default, name


# ------------------------------------------------------------ computing
def test_a_run_in_shards_is_what_the_library_computes(done: Path, parts: Path, threads: int, tmp_path: Path) -> None:
    from whence.demo.corpus import demo_corpus

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    model = library.Model.from_pretrained(library.demo.model_path())
    whole = dataset_attributions(
        model, load_components(parts), demo_corpus(documents=8), out=tmp_path / "runs",
        sequence_length=16, batch_size=2, fold=1, pack=False, output_tokens=[" sings"],
    )  # fmt: skip
    torch.set_num_threads(before)
    found = DatasetAttributions.load(done)
    assert found.tokens == whole.tokens == 8 * 16
    assert found.header.pairs == whole.header.pairs
    for pair in whole.header.pairs:
        mine, theirs = found.block(*pair, normalise="none").values, whole.block(*pair, normalise="none").values
        assert float((mine - theirs).abs().max()) <= 1e-12 * float(theirs.abs().max())
    assert "Next     " in done.with_name("said.txt").read_text()


def test_a_dry_run_plans_and_says_what_would_be_done(whence: Whence, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    asked = ("dataset", "run", "demo", "--components", str(parts), *FEW, "-o", str(out))
    result = whence(*asked, "--dry-run", "--shards", "2", "--batches", "3")
    assert result.exit_code == 0, result.stderr
    (folder,) = out.iterdir()
    plan = read_plan(folder)
    assert (plan.windows, plan.tokens, plan.sizes["model_bytes"] > 0) == (3, 96, True)
    for said in ("96 tokens", "MB on disk", "--shard 0/2", "--shard 1/2", f"--resume {folder}"):
        assert said in result.stdout
    assert not (folder / "shards").exists()
    cluster = whence("dataset", "run", "--resume", str(out), "--engine", "slurm", "--shards", "3", "--dry-run")
    assert "3 windows in 3 shards on slurm" in cluster.stdout


def test_the_planned_size_is_that_of_the_blocks(done: Path) -> None:
    (folder,) = done.iterdir()
    header = DatasetAttributions.load(done).header
    lines = {
        pair: len(header.targets[pair[0]].ids) * len(header.sources[pair[1]].ids)
        for pair in header.pairs
        if pair[1] != "bias"
    }
    sizes = read_plan(folder).sizes
    assert sizes["block_elements"] == sum(lines.values())
    assert sizes["block_bytes"] == sum(8 * count * len(header.of(pair)) for pair, count in lines.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "a run needs MODEL, --components REF, --data DATA, -o OUT."),
        (("plan", "demo", "--components", "attn", "--data", "demo:4"), "a run needs -o OUT."),
        (("run", "demo", "--resume", "nowhere"), "the run is planned: leave model, data and settings away."),
        (("run", "--resume", "nowhere"), "nowhere holds no plan.json; `whence dataset plan` makes one"),
        (("worker", "nowhere", "--shard", "2/2"), "'2/2' is no I/N; 0/4 is the first of four parts, 3/4 the last."),
        (("merge", "a", "b"), "several shards are merged into a new store; it needs -o OUT."),
        (("run", "demo", "--norms", "frozn"), "'frozn' is not known; did you mean 'frozen'?"),
        (
            ("top-sources", "nowhere", "embed:1"),
            "nowhere does not exist, and as a run: 'nowhere' is not the id of a run",
        ),
        (("import", "nowhere.pt", "-o", "runs"), "nowhere.pt"),
        (("export", "runs", "-o", "edges.txt"), "'edges.txt' does not end in .csv, .parquet, .json."),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(whence: Whence, arguments: tuple[str, ...], said: str) -> None:
    result = whence("dataset", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--components", "attn.q", "--data", "demo"), "there is no folder 'attn.q'"),
        (("--components", "attn", "--data", "nowhere.txt"), "there is no file 'nowhere.txt'; give files"),
        (("--components", "attn", "--data", "demo:none"), "'demo:none' is no demo:N"),
        (("--components", "attn", "--data", "demo", "--data", "x"), "several must all be files or folders"),
        (("--components", "attn", "--components", "attn.head", "--data", "demo:2"), "says twice what stands at one"),
        (("--components", "attn", "--data", "demo:2", "--metric", "atr"), "'atr' is not known; did you mean 'attr'?"),
        (("--components", "attn", "--data", "demo:2", "--compat", "spd-413"), "is for norms='live'"),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_made(
    whence: Whence, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    result = whence("dataset", "plan", "demo", *more, "-o", str(tmp_path / "runs"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_plan_names_files_so_that_any_folder_is_right(
    whence: Whence, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(parts.parent)
    (tmp_path / "lines.txt").write_text("The actor sings.\nThe actors sing.\n", encoding="utf-8")
    asked = ("--components", parts.name, "--data", str(tmp_path / "lines.txt"), "--sequence-length", "8")
    made = answer(whence, "plan", "demo", *asked, "-o", tmp_path / "runs", "--keep-order", "--no-unembedding")
    assert made["load"]["components"] == [str(parts)]
    assert made["load"]["model"] == "demo"
    monkeypatch.chdir(tmp_path)
    plan = read_plan(made["folder"])
    assert (plan.settings.seed, plan.unembedding()) == (None, {})
    _, units = dataset_asking.found_again(plan, None)
    assert named.sorted_out(units).describe() == plan.describes["components"]
