"""What ships is as good as it is said to be: floors, not values, since weights need not be equal across machines."""

import json
from dataclasses import replace

import pytest
import torch

from demo.small import untrained
from demo.test_decompose_training import FEW
from whence.components.importance.given import Given
from whence.components.parameter_files import load_components
from whence.demo import components_path, model_path
from whence.demo import decompose as program
from whence.demo.decompose_report import measure_components
from whence.demo.decompose_sites import linear_maps, observed
from whence.demo.model import document_seed
from whence.demo.tokenizer import documents, vocabulary

REPORT = json.loads((model_path().parent / "report.json").read_text())["components"]


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_path()).eval()


@pytest.fixture(scope="module")
def fresh():
    return documents(document_seed("measure", 12345), 96, 64, vocabulary())


@pytest.fixture(scope="module")
def score(model, fresh):
    return measure_components(load_components(components_path()), model, fresh)


def test_the_shipped_components_stand_in_for_every_matrix_at_once(score):
    lost = score.nats_lost
    assert lost["importances"] < 0.02
    assert lost["stochastic"] < 0.02
    assert lost["all"] < 0.02
    assert lost["needed"] < 0.06


def test_the_importances_of_another_token_do_not_serve(model, fresh):
    found = load_components(components_path())
    _, inputs = observed(model, linear_maps(model), fresh)
    said = found.importances(inputs, torch.arange(96))
    shifted = Given({site: c.roll(1, dims=1) for site, c in said.items()})
    assert measure_components(replace(found, importance=shifted), model, fresh).nats_lost["importances"] > 2.0


def test_few_of_the_shipped_components_are_needed_at_a_token(score):
    assert score.active < 0.06
    assert all(row.active < 0.3 * row.count for row in score.matrices)


def test_the_shipped_components_miss_little_of_what_matters(score):
    assert all(row.delta < 0.4 for row in score.matrices)
    assert sum(row.delta for row in score.matrices) / len(score.matrices) < 0.19
    assert all(row.missed < 0.08 for row in score.matrices)


def test_the_shipped_components_are_of_every_matrix_and_some_are_dead(score):
    ends = ("attn.q", "attn.k", "attn.v", "attn.o", "glu.gate", "glu.up", "glu.down")
    assert [row.site for row in score.matrices] == [f"{layer}.{end}" for layer in range(4) for end in ends]
    alive = sum(row.alive for row in score.matrices) / sum(row.count for row in score.matrices)
    assert 0.4 < alive < 0.95


def test_the_shipped_components_are_small_and_were_made_in_time():
    assert sum(file.stat().st_size for file in components_path().iterdir()) < 2e6
    assert REPORT["about"]["cpu_seconds"] < 600


def test_the_report_says_what_is_measured_again(score):
    assert REPORT["active"] == pytest.approx(score.active, abs=0.005)
    assert all(abs(REPORT["nats_lost"][name] - lost) < 0.01 for name, lost in score.nats_lost.items())
    assert [row["alive"] for row in REPORT["matrices"]] == [row.alive for row in score.matrices]


def test_components_are_measured_as_the_files_hold_them(tmp_path):
    model = untrained()
    score = program.make_components(tmp_path / "parts", model, FEW, vocabulary(), measured=4)
    kept = load_components(tmp_path / "parts")
    assert all(torch.equal(part.V, part.V.half().float()) for part in kept)
    again = measure_components(kept, model, documents(document_seed("measure", 0), 4, FEW.context, vocabulary()))
    assert again == score


def test_the_program_prints_what_it_measured_and_puts_it_into_the_report_beside(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "model_path", lambda: saved(tmp_path))
    (tmp_path / "report.json").write_text('{"about": {"seed": 3}}')
    monkeypatch.setattr(program, "DecomposeRecipe", lambda steps=3: replace(FEW, steps=steps))
    program.main(["--out", str(tmp_path / "parts"), "--steps", "2"])
    report, shown = json.loads((tmp_path / "report.json").read_text()), capsys.readouterr()
    assert report["about"] == {"seed": 3}
    assert report["components"]["about"]["recipe"]["steps"] == 2
    assert len(load_components(tmp_path / "parts")) == 14
    assert "1.glu.down" in shown.out
    assert "CPU minutes" in shown.out
    assert "components" in shown.err


def saved(folder):
    untrained().save_pretrained(folder / "model")
    return folder / "model"
