import pytest
import torch
from torch import Tensor

import families
import whence
from by_hand import block, calls, final_norm

IDS = families.prompts(2, 6, seed=11)


def by_hand(hf: torch.nn.Module, stream: Tensor) -> Tensor:
    """Final norm, output embedding, constant scale, cap."""
    config = hf.config
    with torch.no_grad():
        logits = hf.get_output_embeddings()(final_norm(hf)(stream))
    scale = {"cohere": getattr(config, "logit_scale", 1), "granite": 1 / getattr(config, "logits_scaling", 1)}
    logits = logits * scale.get(config.model_type, getattr(config, "lm_head_multiplier", 1.0))
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    return cap * torch.tanh(logits / cap) if cap else logits


@pytest.mark.parametrize("name", families.FAMILIES)
def test_each_layer_is_the_head_reading_the_norm_of_the_stream_as_it_stands(name: str) -> None:
    hf = families.tiny(name)
    lens = whence.logit_lens(whence.Model(hf), IDS, position=None)
    assert lens.logits.shape == (4, 2, 6, 64)
    blocks = [block(hf, layer) for layer in range(3)]
    seen, result = calls(hf, IDS, *blocks)
    for layer, (given, _) in enumerate(seen):
        hidden = next(x for x in given if isinstance(x, Tensor) and x.shape == (2, 6, 32))
        assert torch.allclose(lens.logits[layer], by_hand(hf, hidden), atol=1e-4), layer
    assert torch.allclose(lens.logits[3], result.logits, atol=1e-6)


def test_the_lens_recomputes_the_scale_that_running_sums_hold() -> None:
    model = whence.Model(families.tiny("llama"))
    lens, sums = whence.logit_lens(model, IDS), whence.dla(model, IDS, 9, accumulated=True, by="layer")
    assert torch.allclose(lens.logits[3, :, 0, 9], sums.values[-1], atol=1e-5)
    assert not torch.allclose(lens.logits[1, :, 0, 9], sums.values[1], atol=1e-2)


def test_top_lists_the_most_likely_tokens_and_rank_counts_those_above() -> None:
    lens = whence.logit_lens(whence.Model(families.tiny("gpt2")), IDS, position=[0, -1])
    best = lens.top(3)
    probabilities = lens.logits.softmax(-1)
    for layer in range(4):
        for example in range(2):
            for asked in range(2):
                row = probabilities[layer, example, asked]
                order = row.argsort(descending=True).tolist()
                assert [token for token, _ in best[layer][example][asked]] == [str(i) for i in order[:3]]
                assert [p for _, p in best[layer][example][asked]] == pytest.approx([float(row[i]) for i in order[:3]])
                assert int(lens.rank(9)[layer, example, asked]) == order.index(9)


def test_positions_and_tokens_say_what_was_read() -> None:
    lens = whence.logit_lens(whence.Model(families.tiny("gpt2")), [[5, 6, 7], [8]])
    assert lens.positions == ((2,), (0,))
    assert lens.tokens == (("5", "6", "7"), ("8",))


def test_a_token_that_does_not_exist_has_no_rank() -> None:
    lens = whence.logit_lens(whence.Model(families.tiny("gpt2")), IDS)
    with pytest.raises(ValueError, match="token id 64 is outside"):
        lens.rank(64)
