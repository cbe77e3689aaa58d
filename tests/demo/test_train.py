import json
from dataclasses import replace

import pytest
import torch

from demo.small import RECIPE, untrained
from whence.components.activation import Activation
from whence.components.loading import load_dictionary
from whence.components.parameter_files import load_components
from whence.demo import train as program
from whence.demo.decompose_training import DecomposeRecipe
from whence.demo.fit import DictionaryRecipe
from whence.demo.model import document_seed, train_model
from whence.demo.sets import SetRecipe
from whence.demo.tokenizer import vocabulary

TINY = DictionaryRecipe(n_features=12, activation=Activation("topk", k=3), steps=3, batch=32, documents=4)
SETS = (
    SetRecipe("transcoders", dictionary=TINY),
    SetRecipe("cross_layer_transcoder", across_layers=True, dictionary=TINY),
    SetRecipe("sae_resid_post", "resid_post", dictionary=TINY),
    SetRecipe("sae_attn_out", "attn_out", dictionary=TINY),
)
COMPONENTS = DecomposeRecipe(count=6, hidden=4, steps=3, batch=4, context=16, start=8, held_out=4)
FEW_STEPS = program.Recipe(RECIPE, SETS, COMPONENTS, items=4, measured=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out, stages = tmp_path_factory.mktemp("demo"), []
    report = program.train(out, FEW_STEPS, progress=lambda stage, done, total: stages.append((stage, done, total)))
    return out, report, stages


def test_a_run_leaves_a_model_that_transformers_loads_in_full_precision(run):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = run[0]
    model, stored = AutoModelForCausalLM.from_pretrained(out / "model"), load_file(out / "model" / "model.safetensors")
    assert model.dtype == torch.float32
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in model.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(out / "model")) == model.config.vocab_size


def test_a_run_leaves_every_set_of_its_recipe(run):
    out = run[0]
    kinds = [load_dictionary(out / one.name).kind for one in SETS]
    assert kinds == ["transcoder", "cross_layer_transcoder", "sae", "sae"]
    assert load_dictionary(out / "sae_attn_out").layers == (0, 1)


def test_a_run_leaves_the_parameter_components_of_every_matrix(run):
    out, report, _ = run
    found = load_components(out / "parameter_components")
    assert found.counts == dict.fromkeys((row.site for row in report.components.matrices), 6)
    assert json.loads((out / "report.json").read_text())["components"]["active"] == pytest.approx(
        report.components.active, abs=1e-5
    )


def test_every_file_of_a_run_can_be_read_by_all(run):
    files = [file for file in run[0].rglob("*") if file.is_file()]
    assert len(files) >= 12
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o644"}


def test_the_report_names_every_metric_and_is_written_beside_the_weights(run):
    out, report, _ = run
    kept = json.loads((out / "report.json").read_text())
    assert [(row["family"], row["metric"]) for row in kept["tasks"]] == [(s.family, s.metric) for s in report.tasks]
    assert {row["metric"] for row in kept["tasks"]} == {
        "top-1",
        "right over wrong",
        "later on top",
        "probability difference",
    }
    assert set(kept["in_place"]) == {"transcoders", "cross_layer_transcoder"}
    assert len(kept["dictionaries"]) == 3 * len(SETS)
    assert {"fvu", "l0", "dead", "nats_lost", "loss_recovered"} < set(kept["dictionaries"][0])
    assert kept["about"]["seed"] == 0


def test_progress_reaches_the_end_of_every_stage(run):
    ends = {stage.split(":")[0]: (done, total) for stage, done, total in run[2]}
    assert ends == {"model": (2, 2), "components": (3, 3), **{one.name: (3, 3) for one in SETS}}


def test_the_same_seed_gives_the_same_model():
    first, again = untrained(), untrained()
    other = train_model(RECIPE, vocabulary(), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_training_lowers_the_loss():
    seen = []
    recipe = replace(RECIPE, steps=80, learning_rate=2e-2)
    train_model(recipe, vocabulary(), progress=lambda stage, done, total: seen.append(float(stage.split()[-1])))
    assert seen[-1] < seen[0] - 1.0


def test_no_two_purposes_share_a_seed():
    seeds = {document_seed(purpose, 3, step) for purpose in ("train", "fit", "measure") for step in range(5000)}
    assert len(seeds) == 15000


def test_the_program_prints_its_report_and_draws_its_bars_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(program, "SMALL", replace(FEW_STEPS, sets=SETS[:1]))
    program.main(["--small", "--out", str(tmp_path)])
    shown = capsys.readouterr()
    assert "right over wrong" in shown.out
    assert "recovered" in shown.out
    assert "transcoders" in shown.err


def test_the_small_one_never_replaces_what_ships(capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["--small"])
    assert stop.value.code == 2
    assert "--small needs --out" in capsys.readouterr().err
