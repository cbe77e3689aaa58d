"""Generation under interventions writes what running the whole text anew at every step writes."""

import pytest
import torch
from torch import Tensor

import whence
from families import fresh, loaded, prompts
from whence.interventions.generating import generate
from whence.interventions.kinds import Intervention, ablate, patch, set_value, steer
from whence.interventions.running import intervene
from whence.interventions.session import Freeze
from whence.model.model import Model

PROMPT, OTHER = prompts()
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(5))
OPEN = [
    steer("1.resid_post", add=3 * VECTOR, positions=slice(5, None)),
    ablate("0.attn.head:1"),
    ablate("1.attn.head:2~4"),
    steer("2.attn", scale=-2.0, positions=slice(10, None)),
]


def anew(model: Model, interventions: list[Intervention], steps: int) -> Tensor:
    ids = PROMPT
    for _ in range(steps):
        ids = torch.cat([ids, intervene(model, ids, interventions).logits[0].argmax(-1)])
    return ids


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj", "mistral window", "gpt_oss window", "opt"])
def test_open_ended_interventions_act_on_new_tokens(name: str) -> None:
    model = loaded(name)
    made = generate(model, PROMPT, OPEN, max_new_tokens=6, eos_token_id=None)
    assert torch.equal(made.ids[0], anew(model, OPEN, 6))
    assert made.prompt_length == 9
    assert made.text is None


@pytest.mark.parametrize("name", ["mamba", "jamba"])
def test_recurrent_models_write_under_interventions_too(name: str) -> None:
    model = loaded(name)
    several = [steer("1.resid_post", add=3 * VECTOR, positions=slice(5, None)), ablate("0.ssm@3")]
    made = generate(model, PROMPT, several, max_new_tokens=4, eos_token_id=None)
    assert torch.equal(made.ids[0], anew(model, several, 4))


def test_interventions_with_positions_and_patches_end_with_the_prompt() -> None:
    model = loaded("llama")
    closed = [set_value("1.mlp@8", 4.0), patch("0.mlp", OTHER), ablate("2.attn", positions=slice(2, 4))]
    made = generate(model, PROMPT, closed, max_new_tokens=5, eos_token_id=None)
    fixed = [closed[0], patch("0.mlp", OTHER, positions=slice(0, 9)), closed[2]]
    assert torch.equal(made.ids[0], anew(model, fixed, 5))


def test_what_is_frozen_is_held_in_the_prompt_and_live_after() -> None:
    model = loaded("llama")
    freeze = Freeze(attention=True, norms=True, layers=range(3))
    strong = [steer("0.attn@8", add=20 * VECTOR)]
    first = intervene(model, PROMPT, strong, freeze=freeze).logits[0, 0].argmax()
    made = generate(model, PROMPT, strong, max_new_tokens=4, freeze=freeze, eos_token_id=None)
    assert int(made.ids[0, 9]) == int(first)
    plain = generate(model, PROMPT, [], max_new_tokens=4, freeze=freeze, eos_token_id=None)
    assert torch.equal(plain.ids, generate(model, PROMPT, max_new_tokens=4, eos_token_id=None).ids)


def test_a_model_with_a_tokenizer_gives_text() -> None:
    model = whence.Model.from_pretrained(whence.demo.model_path())
    made = generate(model, whence.demo.PROMPT, max_new_tokens=1)
    assert made.text is not None
    assert made.text[0].endswith(whence.demo.ANSWER)


def test_several_prompts_are_refused_and_hooks_come_off() -> None:
    hf = fresh("llama")
    model = Model(hf)
    with pytest.raises(ValueError, match="one prompt, got 2"):
        generate(model, prompts())
    with pytest.raises(ValueError, match="width"):
        generate(model, PROMPT, [set_value("1.mlp", torch.zeros(5))], freeze=Freeze(attention=True))
    generate(model, PROMPT, OPEN, max_new_tokens=2, freeze=Freeze(norms=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())
