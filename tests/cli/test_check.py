import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

import families
from whence.model import model as model_module
from whence.model.architectures import ARCHITECTURES
from whence.model.selfcheck import Check

Whence = Callable[..., Result]


@pytest.fixture
def gpt2(tmp_path: Path) -> str:
    families.tiny("gpt2").save_pretrained(tmp_path / "gpt2")
    return str(tmp_path / "gpt2")


def test_every_line_of_the_demos_self_check_is_shown(whence: Whence) -> None:
    result = whence("check", "demo")
    assert result.exit_code == 0
    for name in ("stream", "logit", "future", "reach", "frozen", "affine"):
        assert f"ok   {name} " in result.stdout
    assert "FAIL" not in result.stdout
    assert "family   llama (listed)" in result.stdout
    assert "works    whence dla --by component, layer, head, source_token, neuron" in result.stdout


def test_json_holds_the_lines(whence: Whence, gpt2: str) -> None:
    found = json.loads(whence("check", gpt2, "--json").stdout)
    assert (found["accepted"], found["family"], found["listed"], found["graphs"]) == (True, "gpt2", True, True)
    assert all(line["passed"] and line["error"] <= line["bound"] for line in found["checks"])


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that claims a scale of the logits which GPT-2 does not have."""
    wrong = replace(ARCHITECTURES["gpt2"], logit_scale=lambda config: 2.0)
    monkeypatch.setattr(model_module, "ARCHITECTURES", {**ARCHITECTURES, "gpt2": wrong})


def test_a_model_that_is_not_what_its_entry_says_is_refused(
    whence: Whence, gpt2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    result = whence("check", gpt2)
    assert result.exit_code == 2
    assert "ok     stream" in result.stdout
    assert "FAIL   logit" in result.stdout
    assert "works" not in result.stdout
    assert "error: GPT2LMHeadModel (gpt2) failed its self-check 'logit'" in result.stderr


def test_a_refusal_is_json_too(whence: Whence, gpt2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    result = whence("check", gpt2, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 2
    assert found["accepted"] is False
    assert [line["name"] for line in found["checks"] if not line["passed"]] == ["logit"]


def test_an_error_that_is_no_number_is_null_in_json(whence: Whence, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [Check("reach", "a claim", float("inf"), 1e-4)]
    monkeypatch.setattr(model_module, "self_check", lambda *_: lines)
    (line,) = json.loads(whence("check", "demo", "--json").stdout)["checks"]
    assert (line["error"], line["passed"]) == (None, False)


def test_a_model_with_nothing_to_predict_is_one_sentence(whence: Whence, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    size = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 16,
    }
    BertModel(BertConfig(**size)).save_pretrained(tmp_path)
    result = whence("check", str(tmp_path))
    assert result.exit_code == 2
    assert [line[:6] for line in result.stderr.splitlines()][-1] == "error:"
