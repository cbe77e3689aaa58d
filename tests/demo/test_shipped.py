"""What ships is as good as it is said to be: floors, not values, since weights need not be equal across machines."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from whence.components.loading import load_dictionary
from whence.demo import ANSWER, PROMPT, DictionaryName, components_path, dictionary_path, model_path
from whence.demo.evaluate import evaluate_tasks, last_logits
from whence.demo.measure import measure
from whence.demo.model import document_seed
from whence.demo.tokenizer import documents, vocabulary

DATA, SMALL = model_path().parent, Path(__file__).parents[1] / "fixtures" / "small"
FLOOR, FACT_FLOOR, LATER_YEARS = 0.95, 0.9, 0.8
KINDS = {"transcoders": "transcoder", "cross_layer_transcoder": "cross_layer_transcoder"}


def load(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def shipped():
    return load(model_path())


@pytest.fixture(scope="module")
def small():
    return load(SMALL / "model")


@pytest.fixture(scope="module")
def fresh():
    return documents(document_seed("measure", 12345), 96, 64, vocabulary())


def floor(score, which):
    if which == "small" and score.family == "list repetition":
        return 0.3  # the one task that two layers of this width learn only in part
    if score.metric == "probability difference":
        return LATER_YEARS
    return FACT_FLOOR if score.held_out == "cities" else FLOOR


@pytest.mark.parametrize("which", ["shipped", "small"])
def test_every_task_is_done_well(which, request):
    model, tokenizer = request.getfixturevalue(which)
    scores = evaluate_tasks(model, tokenizer, items=120, seed=11)
    assert [score for score in scores if score.score < floor(score, which)] == []
    assert {score.held_out for score in scores} == {"", "noun pairs", "name pairs", "cities"}


@pytest.mark.parametrize("which", ["shipped", "small"])
def test_a_plain_load_computes_in_full_precision(which, request):
    assert {p.dtype for p in request.getfixturevalue(which)[0].parameters()} == {torch.float32}


def test_the_prompt_is_answered(shipped):
    model, tokenizer = shipped
    probabilities = last_logits(model, tokenizer, [PROMPT])[0].softmax(-1)
    assert tokenizer.decode([probabilities.argmax()]) == ANSWER
    assert probabilities.max() > 0.5


@pytest.mark.parametrize("name", get_args(DictionaryName))
def test_every_dictionary_stands_in_for_its_site(name, shipped, fresh):
    found = load_dictionary(dictionary_path(name))
    *layers, whole = measure(name, found, shipped[0], fresh)
    assert found.kind == KINDS.get(name, "sae")
    assert found.layers == (0, 1, 2, 3)
    assert [score for score in layers if score.fvu > 0.05 or score.l0 > 10] == []
    assert [score for score in layers if score.loss_recovered < 0.98 and score.nats_lost > 0.03] == []
    assert whole.loss_recovered > 0.9


def test_the_small_transcoders_are_good_and_the_poor_ones_are_not(small, fresh):
    good, poor = (
        measure(name, load_dictionary(SMALL / name), small[0], fresh) for name in ("transcoders", "poor_transcoders")
    )
    assert max(score.fvu for score in good) < 0.03
    assert all(0.03 < score.fvu < 0.2 for score in poor)
    assert load_dictionary(SMALL / "poor_transcoders")[0].activation.kind == "relu"


@pytest.mark.parametrize("folder", [DATA, SMALL], ids=["shipped", "small"])
def test_the_report_beside_the_weights_names_what_lies_there(folder):
    report = json.loads((folder / "report.json").read_text())
    found = {file.parent.name for file in folder.glob("*/result.json")}
    components = {components_path().name} if "components" in report else set()
    assert {row["name"] for row in report["dictionaries"]} | components == found
    assert all(row["metric"] for row in report["tasks"])


def test_the_report_s_scores_are_the_shipped_model_s(shipped):
    report = json.loads((DATA / "report.json").read_text())
    again = evaluate_tasks(*shipped, items=60, seed=7)
    assert all(abs(row["score"] - ours.score) < 0.05 for row, ours in zip(report["tasks"], again, strict=True))


def test_what_ships_stays_small():
    def megabytes(folder):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6

    assert megabytes(DATA) < 10.5
    assert megabytes(SMALL) < 1.0


def test_importing_the_demo_loads_no_torch():
    import subprocess
    import sys

    seen = subprocess.run(
        [sys.executable, "-c", "import sys, whence.demo; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "False"


def test_an_unknown_dictionary_is_refused_with_those_there_are():
    with pytest.raises(Exception, match="sae_resid_post"):
        dictionary_path("sae_resid_pre")
