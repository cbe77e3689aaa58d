"""Direct edges against a dense Jacobian of clamped forward passes of the whole model, at every pair of sites."""

from typing import Any

import pytest
import torch

from circuit_cases import Wide, oracle, pairs, random_saes, random_transcoders, small, solved
from whence.components.activation import Activation

THREE = {"attn_out": 32, "mlp_out": 32, "resid_post": 32}
GEMMA_THREE = {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32}
TOP, JUMP = Activation("topk", k=4), Activation("jumprelu", threshold=torch.tensor(0.4))
SITES: dict[str, tuple[str, list[Any]]] = {
    "gpt2": ("gpt2", random_saes(range(2), THREE)),
    "parallel": ("gpt_neox", random_saes(range(2), THREE)),
    "sequential": ("gpt_neox sequential", random_saes(range(2), THREE)),
    "post-norm": ("gemma2", random_saes(range(2), GEMMA_THREE)),
    "stream only": ("gpt2", random_saes(range(2), {"resid_post": 32})),
    "one layer's stream": ("gpt_neox", random_saes([0], {"resid_post": 32})),
    "mlp only": ("llama", random_saes(range(2), {"mlp_out": 32})),
    "z and stream": ("qwen3", random_saes(range(2), {"attn_z": 32, "resid_post": 32})),
    "embeddings": ("gpt2", [*random_saes([0], {"embed": 32}), *random_saes(range(2), {"attn_out": 32})]),
    "transcoders": ("gpt2", random_transcoders(range(2), 32)),
    "skip transcoders": ("llama", [*random_transcoders(range(2), 32, skip=True), "attn"]),
    "skip transcoders between streams": (
        "gpt2",
        [*random_transcoders(range(2), 32, skip=True), *random_saes(range(2), {"resid_post": 32})],
    ),
    "transcoders of the normalized stream": ("gpt2", random_transcoders(range(2), 32, reads="mlp_in_normalized")),
    "the same, root mean square": ("llama", random_transcoders(range(2), 32, reads="mlp_in_normalized")),
    "transcoders of the stream, behind the post-norm": (
        "gemma2",
        random_transcoders(range(2), 32, reads="resid_mid", writes="mlp_out_normed"),
    ),
    "stream before the blocks": ("gpt2", random_saes([1], {"resid_pre": 32, "mlp_out": 32})),
    "top-k": ("gpt2", random_saes(range(2), {"mlp_out": 32, "resid_post": 32}, activation=lambda _: TOP)),
    "jumprelu": ("gpt_neox", random_saes(range(2), {"mlp_out": 32, "resid_post": 32}, activation=lambda _: JUMP)),
    "heads": ("gpt_neox", ["attn.head"]),
    "heads and MLPs": ("gemma2", ["attn.head", "mlp"]),
    "sublayers": ("llama", ["attn", "mlp"]),
    "neurons": ("gpt2", ["mlp.neuron", "attn.head"]),
}


@pytest.mark.parametrize("name", list(SITES))
def test_every_edge_is_the_derivative_with_everything_else_clamped(name: str) -> None:
    family, dictionaries = SITES[name]
    model, (ids, other) = small(family), pairs()
    with Wide():
        found, slow = solved(model, dictionaries, ids, other), oracle(model, dictionaries)
        keys = [site.key for site in found.network.sites]
        assert set(keys) == {part.key for part in slow.parts}
        seen = 0.0
        for at, source in enumerate(keys):
            for target in (*keys[at + 1 :], None):
                expected = slow.edges(ids, other, source, target)
                seen = max(seen, float(expected.abs().max()))
                torch.testing.assert_close(found.edges(source, target), expected, rtol=1e-9, atol=1e-12)
    assert seen > 0.1
    assert found.out_sum_error() < 1e-12
