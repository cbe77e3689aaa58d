"""Short prompts, small chunks and narrow models: the same law everywhere."""

from typing import Any

import pytest
import torch

from circuit_cases import Wide, pairs, random_saes, small, solved
from families import loaded
from whence.engine.circuits import joins, meeting, pulling

SAES = random_saes(range(3), {"resid_post": 32}, 0, torch.float32)
PROMPTS: dict[str, tuple[Any, Any]] = {
    "one token": ([[5]], [[9]]),
    "two tokens": ([[7, 31]], [[18, 31]]),
    "one token, then three": ([[5], [7, 31, 12]], [[9], [7, 18, 12]]),
    "three tokens, then one": ([[7, 31, 12], [5]], [[7, 18, 12], [9]]),
    "the same token": ([[7, 7, 7], [5, 9, 9]], [[9, 7, 7], [5, 6, 9]]),
}


@pytest.mark.parametrize("prompts", list(PROMPTS))
@pytest.mark.parametrize("name", ["gpt2", "gpt_oss", "gemma2"])  # sinks compare even a single token with something
def test_out_edges_sum_on_short_prompts(name: str, prompts: str) -> None:
    found = solved(loaded(name), [*SAES, "attn.head", "mlp"], *PROMPTS[prompts])
    assert found.out_sum_error() < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_a_narrow_models_edges_sum_up_to_its_rounding(name: str) -> None:
    ids, other = pairs()
    model = loaded(name, torch.bfloat16)
    for dictionaries in ([*SAES, "attn.head", "mlp"], [*SAES, "mlp.neuron"], random_saes(range(3), {"mlp_out": 32})):
        assert 0 < solved(model, dictionaries, ids, other).out_sum_error() < 0.05


@pytest.mark.parametrize(
    ("module", "limit", "value"),
    [(joins, "AT_ONCE", 1), (joins, "DENSE", 0), (pulling, "TOKENS_AT_ONCE", 3), (meeting, "ROWS_AT_ONCE", 5)],
)
def test_chunks_change_no_edge(monkeypatch: pytest.MonkeyPatch, module: Any, limit: str, value: int) -> None:
    model, (ids, other) = small("gemma2"), pairs()
    saes = random_saes(range(2), {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32})
    with Wide():
        plain = solved(model, saes, ids, other)
        monkeypatch.setattr(module, limit, value)
        again = solved(model, saes, ids, other)
    keys = [site.key for site in plain.network.sites]
    for source in keys:
        for target in (*keys, None):
            torch.testing.assert_close(again.edges(source, target), plain.edges(source, target), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("of_model", "of_dictionary"), [(torch.float64, torch.float32), (torch.float32, torch.float64)]
)
def test_dictionaries_may_be_of_another_width_than_the_model(of_model: torch.dtype, of_dictionary: torch.dtype) -> None:
    ids, other = pairs()
    saes = random_saes(range(3), {"attn_out": 32, "mlp_out": 32, "resid_post": 32}, dtype=of_dictionary)
    assert solved(loaded("llama", of_model), saes, ids, other).out_sum_error() < 1e-5
