"""Queries and keys as affine maps: tested on prompts the maps were not made from."""

from typing import Any

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, fresh, loaded, prompts
from whence.engine.query_key import QueryKey, query_key
from whence.errors import UnsupportedModelError
from whence.model.attention import AttentionTape, Scored, tapped
from whence.model.hooks import first_tensor, hooked
from whence.model.model import Model

NORMED: dict[str, tuple[str, dict[str, Any]]] = {
    "stablelm": ("stablelm", {"qk_layernorm": True}),
    "cohere": ("cohere", {"use_qk_norm": True}),
}
QK_NORM = ("qwen3", "gemma3_text", "olmo2", "olmoe", "qwen3_moe", *(f"{name} normed" for name in NORMED))
PLAIN = tuple(name for name in GRAPH_FAMILIES if name not in QK_NORM)
QUERY, KEY, HEAD = 7, 5, 3
ZERO = torch.zeros((), dtype=torch.float64)


def model_of(name: str) -> Model:
    if not name.endswith(" normed"):
        return loaded(name, torch.float64)
    base, settings = NORMED[name.removesuffix(" normed")]
    return Model(fresh(base, torch.float64, **settings))


def seen(model: Model, ids: Tensor) -> tuple[Tensor, Scored]:
    """What the last attention reads, and what it compares."""
    writer, scored, read = model.layout.attention[-1], list[Scored](), list[Tensor]()
    how, modules = model.architecture.patterns, tuple(w.module for w in model.layout.attention)
    assert how is not None
    hook = (writer.module, lambda args, kwargs: read.append(first_tensor(args, kwargs)))
    with (
        torch.no_grad(),
        tapped(model.hf, modules, how, AttentionTape("record", on_scores=scored.append)),
        hooked(before=[hook]),
    ):
        model.hf(input_ids=ids, use_cache=False)
    return read[0][0], scored[-1]


def whole(model: Model, ids: Tensor, query: int = QUERY, key: int = KEY) -> QueryKey:
    return query_key(model.layout, model.batch(ids), model.layout.attention[-1], HEAD, query, key, ZERO)


@pytest.mark.parametrize("name", PLAIN)
def test_the_maps_of_one_prompt_give_the_queries_and_keys_of_another(name: str) -> None:
    model = model_of(name)
    found = whole(model, prompts(1, 9, seed=1))
    read, scored = seen(model, prompts(1, 9, seed=2))
    group = HEAD // (scored.query.shape[1] // scored.key.shape[1])
    query = found.query.rows @ read[QUERY] + found.query.constant
    key = found.key.rows @ read[KEY] + found.key.constant
    accuracy = 1e-6 if name == "cohere" else 1e-10  # it rotates in float32 whatever its weights are
    torch.testing.assert_close(query, scored.query[0, HEAD, QUERY], atol=accuracy, rtol=0)
    torch.testing.assert_close(key, scored.key[0, group, KEY], atol=accuracy, rtol=0)


@pytest.mark.parametrize("name", QK_NORM)
def test_a_norm_of_queries_and_keys_only_scales_what_the_maps_give_for_another_prompt(name: str) -> None:
    model = model_of(name)
    found = whole(model, prompts(1, 9, seed=1))
    read, scored = seen(model, prompts(1, 9, seed=2))
    group = HEAD // (scored.query.shape[1] // scored.key.shape[1])
    sides = ((found.query, QUERY, scored.query[0, HEAD]), (found.key, KEY, scored.key[0, group]))
    for side, position, real in sides:
        mapped, expected = side.rows @ read[position], real[position] - side.constant
        cosine = torch.nn.functional.cosine_similarity(mapped, expected, dim=0)
        assert float(cosine) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("name", [*GRAPH_FAMILIES, *QK_NORM, "mistral window", "gemma2 window", "gpt_oss window"])
def test_scores_of_one_query_give_the_pattern(name: str) -> None:
    model, ids = model_of(name), prompts(1, 9)
    one, other = whole(model, ids, key=6), whole(model, ids, key=7)
    cap = getattr(model.hf.config, "attn_logit_softcapping", None)
    scores = torch.tensor([one.score, other.score], dtype=torch.float64)
    capped = cap * (scores / cap).tanh() if cap else scores
    ratio = float((capped[0] - capped[1]).exp())
    assert one.weight / other.weight == pytest.approx(ratio, rel=1e-6)


def test_a_softcap_that_bites_is_taken_off() -> None:
    model = Model(fresh("gemma2", torch.float64, attn_logit_softcapping=1.5))
    found = whole(model, prompts(1, 9))
    assert found.scaling == pytest.approx(8**-0.5, rel=1e-9)
    assert abs(found.score) > 0.5


def test_a_bias_of_positions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama", torch.float64)
    from transformers.models.llama import modeling_llama

    own = modeling_llama.eager_attention_forward

    def biased(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any) -> Any:
        slope = torch.arange(key.shape[2], dtype=query.dtype)
        return own(module, query, key, value, mask + slope, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", biased)
    with pytest.raises(UnsupportedModelError, match="multiples of query"):
        whole(model, prompts(1, 9))


def test_queries_that_are_clipped_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama", torch.float64)
    from transformers.models.llama import modeling_llama

    own = modeling_llama.apply_rotary_pos_emb

    def clipped(query: Tensor, key: Tensor, *args: Any) -> Any:
        return own(query.clamp(-0.1, 0.1), key, *args)

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", clipped)
    with pytest.raises(UnsupportedModelError, match="off by"):
        whole(model, prompts(1, 9))


def test_a_key_behind_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="no weight from position 7"):
        whole(loaded("mistral window"), prompts(1, 9), key=1)


def test_a_prompt_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="one token"):
        whole(loaded("llama"), prompts(1, 1), query=0, key=0)


def test_the_model_is_left_as_it_was() -> None:
    model, ids = loaded("qwen3"), prompts(1, 9)
    with torch.no_grad():
        before = model.hf(input_ids=ids).logits
        whole(model, ids)
        assert torch.equal(model.hf(input_ids=ids).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
