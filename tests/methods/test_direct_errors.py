"""Each mistake is named: the thing, the value seen, the remedy. Annotations are not checked here, as for users."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

import families
import whence

IDS = families.prompts(2, 7)


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    return inspect.unwrap(function)


def attribute(
    name: str = "llama", input: object = IDS, targets: object = 5, foils: object = None, **options: Any
) -> Any:
    model = whence.Model(families.tiny(name))
    return unchecked(whence.direct_logit_attribution)(model, input, targets, foils, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "heads"}, r"by='heads' is no granularity; did you mean 'head'\?"),
        ({"by": "xyzzy"}, "is no granularity; it is one of component, layer, head"),
        ({"by": ()}, "names no granularity"),
        ({"by": ("head", "component")}, "'component' stands alone"),
        ({"by": ("neuron", "expert")}, "both split moe writes"),
        ({"by": "head", "accumulated": True}, "accumulated=True .* not 'head'"),
        ({"bias": "drop"}, "bias='drop'; it is 'separate' or 'exclude'"),
        ({"top": 3}, "top=3 with by='component'"),
        ({"by": "layer", "top": 3}, "top=3 with by='layer'"),
        ({"by": "head", "top": 0}, "top=0 .* at least 1"),
        ({"position": 7}, "position 7 is outside prompt 0, which has 7 tokens"),
        ({"position": -8}, "position -8 is outside prompt 0"),
        ({"position": []}, "position is an empty list"),
        ({"input": [[5, 6], [7]], "position": 1}, "position 1 is outside prompt 1, which has 1 tokens"),
        ({"input": [[5, 6], []]}, "prompt 1 has no tokens"),
        ({"input": []}, "prompt 0 has no tokens"),
        ({"input": [[5, 64]]}, "prompt 0 holds token id 64; this model has ids 0 to 63"),
        ({"input": [[5, -1]]}, "token id -1"),
        ({"input": "text"}, "no tokenizer; pass token ids"),
        ({"targets": " a"}, "no tokenizer to look up ' a'"),
        ({"targets": 64}, "token id 64 is outside 0 to 63"),
        ({"targets": -1}, "token id -1 is outside 0 to 63"),
        ({"targets": torch.tensor([5, 64])}, "token id 64 is outside 0 to 63"),
        ({"targets": torch.tensor([5, 6, 7])}, r"shape \[3\]; for 2 prompt\(s\) .* pass a list"),
        ({"targets": torch.tensor([[5, 6, 7]] * 2)}, r"shape \[2, 3\]"),
        ({"targets": torch.tensor([[5, 6, 7]] * 2), "position": [0, 1]}, r"\[2\], \[2, 2\]"),
        ({"targets": []}, "targets is empty"),
        ({"targets": 5, "foils": []}, "foils is empty"),
        ({"targets": [5, 6, 7], "foils": [8, 9]}, "3 targets against 2 foils"),
        ({"targets": None, "foils": 5}, "foils cannot be combined with the most likely token"),
        ({"targets": 5, "foils": 6, "centered": True}, "cannot be combined with foils"),
        ({"targets": torch.tensor([[5, 6]] * 2), "centered": True}, r"cannot be combined with \(answer, foil\) pairs"),
        ({"targets": whence.logit_difference(5, 6), "foils": 7}, "foils cannot be combined with a logit difference"),
        ({"targets": whence.logit_difference([5], [6])}, r"1 tokens, one per prompt, for 2 prompt\(s\)"),
        ({"targets": whence.probability(5), "foils": 7}, "foils cannot be combined with a target that is not a token"),
        ({"targets": whence.probability(5), "centered": True}, "centered=True is for token targets"),
        ({"targets": whence.kl_divergence(torch.zeros(3))}, r"shape \(3,\); the model's have \(64,\)"),
        ({"targets": ("a", 1.0, torch.zeros(3))}, r"must have shape \(32,\)"),
        ({"targets": [("a", 1.0, torch.full((32,), float("nan")))]}, r"targets\[0\]: vec\[0\] is nan"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_a_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": 5.0}, "targets is float; expected a token"),
        ({"targets": True}, "not the boolean True"),
        ({"targets": torch.tensor([5.0, 6.0])}, "tensor of torch.float32; ids are integers"),
        ({"targets": torch.tensor([True, False])}, "tensor of torch.bool"),
        ({"targets": [5, 6.0]}, r"targets\[1\] is float"),
        ({"targets": [whence.probability(5), 6]}, r"targets\[0\] is Probability"),
        ({"targets": 5, "foils": {6}}, "foils is set"),
        ({"input": 5}, "input is int; expected a string"),
        ({"input": torch.zeros(2, 3)}, "2-D tensor of torch.float32"),
    ],
)
def test_an_argument_of_another_kind_is_a_type_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        attribute(**options)


@pytest.mark.parametrize(
    ("name", "by", "message"),
    [
        ("mamba", "neuron", r"MambaForCausalLM: layer 0 holds ssm.* Available: component, layer, channel"),
        ("mamba", "head", "layer 0 holds ssm"),
        ("llama", "expert", r"layer 0 holds attn and mlp.* Available: component, layer, head, source_token, neuron$"),
        ("llama", "channel", "layer 0 holds attn and mlp"),
        ("bloom", "source_token", "attention patterns cannot be read"),
        ("mamba2", "source_token", "Available: component, layer, head, channel"),
    ],
)
def test_a_granularity_without_meaning_names_the_layer_and_what_there_is(name: str, by: str, message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        attribute(name, by=by)


def test_every_granularity_said_to_be_available_works_and_every_other_is_refused() -> None:
    from whence.engine.granularity import GRANULARITIES, available

    for name in ("gpt2", "bloom", "jamba", "mamba2", "qwen3_next", "recurrent_gemma", "gpt_oss"):
        offered = available(whence.Model(families.tiny(name)).layout)
        for by in set(GRANULARITIES) - {"feature"}:
            if by in offered:
                assert attribute(name, by=by).keys
            else:
                with pytest.raises(NotImplementedError, match=f"by='{by}' has no meaning"):
                    attribute(name, by=by)
