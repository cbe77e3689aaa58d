"""Direct attribution takes arguments of every library alike, and refuses those it cannot mean."""

import json
import threading
from typing import Any

import numpy as np
import pytest
import torch

import families
from families import MULTIMODAL, fresh, loaded
from whence.methods.direct import direct_logit_attribution as dla
from whence.methods.lens import logit_lens
from whence.model.model import Model
from whence.targets.attribution import AttributionTargets
from whence.targets.specs import probability

RAGGED = [[5, 6, 7, 8, 9], [9, 8, 7]]


@pytest.mark.parametrize("name", MULTIMODAL)
@pytest.mark.parametrize("by", ["component", ("head", "neuron"), "source_token"])
def test_the_text_of_a_multimodal_model_adds_up(name: str, by: Any) -> None:
    scores = dla(loaded(name), RAGGED, 10, by=by)
    assert torch.allclose(scores.target, loaded(name).logits(RAGGED)[:, 0, 10], atol=1e-5)
    assert float((scores.remainder.abs() / scores.magnitude).max()) < 1e-6


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "phi"])  # no cap; a cap; an output bias
def test_attribution_targets_that_are_tokens_explain_the_models_own_logits(name: str) -> None:
    model = loaded(name)
    logits = model.logits([5, 6, 7])[0, 0]
    targets = AttributionTargets(torch.tensor([5, 6]), model=model, logits=logits)
    assert torch.allclose(dla(model, [5, 6, 7], targets).target[0], logits[[5, 6]], atol=1e-5)


def test_numbers_of_numpy_and_torch_mean_what_pythons_do() -> None:
    model = loaded("gpt2")
    plain = dla(model, [5, 6, 7], 3, position=1)
    assert torch.equal(dla(model, np.array([5, 6, 7]), np.int64(3), position=np.int64(1)).values, plain.values)
    assert torch.equal(dla(model, [5, 6, 7], torch.tensor(3), position=torch.tensor(1)).values, plain.values)
    pair = dla(model, [5, 6, 7], np.array([3]), np.array([4]), position=1)
    assert torch.equal(pair.values, dla(model, [5, 6, 7], 3, 4, position=1).values)
    several = dla(model, [5, 6, 7], [np.int64(3), 4], position=np.array([0, 1]))
    assert torch.allclose(several.values[:, :, 1, 0], plain.values, atol=1e-6)
    json.dumps(several.to_json())


@pytest.mark.parametrize("position", [1.0, "1", True, [0, 1.5], [True]])
def test_a_position_that_is_no_whole_number_is_refused(position: Any) -> None:
    with pytest.raises(TypeError, match="position is"):
        loaded("gpt2").batch([5, 6]).rows(position)


def test_what_a_tokenizer_returns_may_be_unpadded() -> None:
    model = loaded("gpt2")
    padded = {"input_ids": [[5, 6, 7], [0, 8, 9]], "attention_mask": [[1, 1, 1], [0, 1, 1]]}
    unpadded = {"input_ids": [[5, 6, 7], [8, 9]]}
    assert torch.equal(dla(model, padded, 3).values, dla(model, unpadded, 3).values)
    with pytest.raises(ValueError, match="without 'input_ids'; it has: ids"):
        dla(model, {"ids": [[1]]}, 3)


def test_pairs_of_answer_and_foil_go_with_several_positions() -> None:
    model = loaded("gpt2")
    pairs = torch.tensor([[1, 2], [3, 4]])
    every = dla(model, RAGGED, pairs, position=[-3, -2, -1])
    assert torch.equal(every.values[..., 2], dla(model, RAGGED, pairs).values)
    each = dla(model, RAGGED, torch.stack([pairs.flip(1), pairs], dim=1), position=[-2, -1])
    assert torch.allclose(each.values[..., 1], every.values[..., 2], atol=1e-6)
    assert torch.allclose(each.values[..., 0], -every.values[..., 1], atol=1e-6)


def test_two_ids_for_two_positions_are_refused_as_ambiguous() -> None:
    with pytest.raises(ValueError, match=r"could be \(answer, foil\) or a token per position"):
        dla(loaded("gpt2"), RAGGED, torch.tensor([[1, 2], [3, 4]]), position=[-2, -1])


@pytest.mark.parametrize("targets", [10, [10, 11]])
def test_the_strongest_units_of_one_row_are_found_while_streaming(
    targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whence.engine import direct_effects

    model, prompt = loaded("gpt2"), [5, 6, 7]
    full = dla(model, prompt, targets, by="neuron")
    monkeypatch.setattr(direct_effects, "_kept", None)  # no input may be kept for later
    kept = dla(model, prompt, targets, by="neuron", top=5)
    units = [key for key in kept.keys if key.name == "mlp.neuron"]
    assert len(units) == 5
    assert all(torch.allclose(full[key], kept[key], atol=1e-6) for key in units)
    strength = full.values.abs().flatten(1).mean(1)
    neurons = [row for row, key in enumerate(full.keys) if key.name == "mlp.neuron"]
    assert {full.keys[row] for row in sorted(neurons, key=lambda row: -strength[row])[:5]} == set(units)
    assert float((kept.remainder.abs() / kept.magnitude).max()) < 1e-6


def test_a_mean_counts_only_the_prompts_that_have_a_position() -> None:
    model = loaded("gpt2")
    scores, alone = dla(model, RAGGED, 10, position=None), dla(model, RAGGED[:1], 10, position=None)
    assert torch.allclose(scores.mean().values[:, 0, 3:], alone.values[:, 0, 3:], atol=1e-6)
    assert len(scores.to_pandas()) == len(scores.keys) * (5 + 3)
    missing = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    assert torch.equal(model.logits(RAGGED, None).isnan().any(-1), missing)
    assert torch.equal(logit_lens(model, RAGGED, position=None).logits[0].isnan().any(-1), missing)


def test_inference_mode_does_not_keep_metrics_from_being_explained() -> None:
    model = loaded("gpt2")
    expected = dla(model, [5, 6, 7], probability(3)).values
    with torch.inference_mode():
        assert torch.equal(dla(model, [5, 6, 7], probability(3)).values, expected)


def test_threads_take_turns_on_one_model() -> None:
    model = loaded("llama")
    before, expected = model.hf.config._attn_implementation, dla(model, RAGGED, 10, by="source_token").values
    results: list[torch.Tensor] = []
    jobs = [
        threading.Thread(
            target=lambda: results.extend(dla(model, RAGGED, 10, by="source_token").values for _ in range(3))
        )
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(results) == 9
    assert all(torch.equal(result, expected) for result in results)
    assert model.hf.config._attn_implementation == before


def test_a_model_put_into_training_mode_later_is_refused() -> None:
    model = Model(fresh("llama"))
    model.hf.train()
    with pytest.raises(ValueError, match=r"call \.eval\(\) on it"):
        dla(model, [5, 6], 3)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "opt"])
def test_a_prompt_beyond_the_learned_positions_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="65 tokens is longer than the model's 64 positions"):
        dla(loaded(name), [5] * 65, 3)


def test_provenance_tells_which_tokens_were_explained() -> None:
    scores = dla(loaded("gpt2"), [5, 6, 7], position=None)
    best = loaded("gpt2").logits([5, 6, 7], None).argmax(-1)
    assert scores.provenance["targets"] == {"ids": best[..., None].tolist(), "foils": None}


def test_a_row_is_looked_up_by_its_key() -> None:
    scores = dla(loaded("gpt2"), [5, 6, 7], 3, by="head")
    assert torch.equal(scores["1.attn.head:2"], scores.values[[str(key) for key in scores.keys].index("1.attn.head:2")])
    with pytest.raises(KeyError, match="not among these"):
        scores["7.attn.head:2"]


def test_a_model_with_a_learned_prompt_is_refused() -> None:
    import warnings

    from peft import PromptTuningConfig, TaskType, get_peft_model

    with warnings.catch_warnings():  # peft asks transformers for a property by its old name
        warnings.filterwarnings("ignore", category=FutureWarning)
        config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
        wrapped = get_peft_model(families.fresh("llama"), config)
    with pytest.raises(TypeError, match="learns a prompt"):
        Model(wrapped)
