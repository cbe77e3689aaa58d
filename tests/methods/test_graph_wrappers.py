"""One graph from one model, however it is wrapped; each model is gone before the next is made."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import families
import whence
from whence.components.activation import Activation
from whence.methods.graph import attribution_graph
from wrappers import bridge, nnsight_model

PROMPT = families.prompts(1, 7, seed=3)
TARGET = torch.tensor([9])
FEATURES, WIDTH = 24, families.WIDTH
COMPONENTS = (
    *("self_attn", "attn", "mlp", "input_layernorm", "post_attention_layernorm", "ln_1", "ln_2", "norm", "ln_f"),
    *("q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "c_proj", "up_proj", "gate_proj", "down_proj", "c_fc"),
    *("embed_tokens", "wte", "wpe", "lm_head"),
)
WRAPPED: dict[str, Callable[[torch.nn.Module], Any]] = {
    "native": lambda hf: hf,
    "nnsight": nnsight_model,
    "bridge": lambda hf: bridge(hf, *COMPONENTS),
}


def random(*shape: int, seed: int) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def transcoders() -> list[whence.Transcoder]:
    return [
        whence.Transcoder(
            layer,
            random(FEATURES, WIDTH, seed=layer),
            random(FEATURES, seed=layer + 10),
            random(FEATURES, WIDTH, seed=layer + 20),
            random(WIDTH, seed=layer + 30),
            Activation("relu"),
        )
        for layer in range(families.LAYERS)
    ]


def graph_then_freed(name: str, wrap: Callable[[Any], Any], dictionary: Any, **options: Any) -> Any:
    """A graph, and the model that it is of no longer in memory."""
    hf = families.fresh(name)
    alive = [weakref.ref(hf), *(weakref.ref(parameter) for parameter in hf.parameters())]
    graph = attribution_graph(whence.Model(wrap(hf)), dictionary, PROMPT, torch.tensor([9, 12]), **options)
    del hf
    gc.collect()  # modules and their hooks may refer to one another
    assert not [one() for one in alive if one() is not None]
    return graph


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama tied", "gemma2", "mixtral"])
@pytest.mark.parametrize("units", ["transcoders", "neurons"])
def test_every_wrapper_gives_the_graph_of_the_native_model(name: str, units: str) -> None:
    dictionary = transcoders() if units == "transcoders" else None
    native, *others = [graph_then_freed(name, wrap, dictionary) for wrap in WRAPPED.values()]
    for other in others:
        assert list(other.nodes) == list(native.nodes)
        assert torch.equal(other.active_features, native.active_features)
        scale = native.dense().abs().max()
        assert (other.dense() - native.dense()).abs().max() <= 1e-5 * scale
        assert other.certificate.worst <= 1e-5


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_a_graph_is_the_same_while_the_model_is_offloaded(wrapped: str, offload: Any) -> None:
    here = graph_then_freed("gpt2", WRAPPED[wrapped], transcoders())
    away = graph_then_freed("gpt2", WRAPPED[wrapped], transcoders(), offload=offload)
    assert list(away.nodes) == list(here.nodes)
    assert torch.equal(away.dense(), here.dense())
    assert away.provenance == here.provenance


@pytest.mark.parametrize("order", ["influence", "exact"])
def test_a_choice_of_rows_is_the_same_while_the_model_is_on_disk(order: Any) -> None:
    model = whence.Model(families.fresh("llama"))
    here = attribution_graph(model, transcoders(), PROMPT, TARGET, max_nodes=20, order=order)
    away = attribution_graph(model, transcoders(), PROMPT, TARGET, max_nodes=20, order=order, offload="disk")
    assert list(away.nodes) == list(here.nodes)
    assert torch.equal(away.dense(), here.dense())


def test_the_weights_are_away_while_rows_are_solved_and_back_afterwards() -> None:
    hf = families.fresh("llama")
    model, live = whence.Model(hf), list[int]()

    def look(what: str, done: int, total: int) -> None:
        live.append(sum(p.nbytes for p in hf.parameters() if p.device.type != "meta"))

    before = model.logits(PROMPT)
    attribution_graph(model, transcoders(), PROMPT, TARGET, offload="disk", progress=look)
    assert live
    assert not any(live)
    assert torch.equal(model.logits(PROMPT), before)


def test_the_model_is_back_after_an_error_while_it_was_on_disk() -> None:
    model = whence.Model(families.fresh("llama"))
    before = model.logits(PROMPT)

    def stop(what: str, done: int, total: int) -> None:
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        attribution_graph(model, transcoders(), PROMPT, TARGET, offload="disk", progress=stop)
    assert torch.equal(model.logits(PROMPT), before)
