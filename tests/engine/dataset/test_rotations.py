import pytest
import torch

from dataset_parts import random_parts, wired
from families import loaded
from whence.engine.dataset.wired import Wired


def wiring(name: str) -> Wired:
    model = loaded(name)
    return wired(model, random_parts(model, 2, only=("attn.q", "attn.k", "attn.v", "attn.o")))


def test_rotations_are_those_of_the_models_tables() -> None:
    how = next(iter(wiring("llama").compared.values()))
    cos, sin = loaded("llama").hf.model.rotary_emb(torch.zeros(1), torch.arange(7)[None])
    half = cos.shape[-1] // 2
    turn = torch.zeros(2 * half, 2 * half)
    turn[:half, half:], turn[half:, :half] = -torch.eye(half), torch.eye(half)
    truth = cos[0, :, :, None] * torch.eye(2 * half) + sin[0, :, :, None] * turn
    for R in (how.query, how.key):
        assert torch.allclose(R[:7], truth, atol=1e-6)
    assert how.scale == pytest.approx(8**-0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["gptj", "phi", "stablelm", "starcoder2"])
def test_rotations_in_full_or_in_part_keep_lengths(name: str) -> None:
    for how in wiring(name).compared.values():
        eye = torch.eye(how.key.shape[-1])
        assert torch.allclose(how.key @ how.key.mT, eye.expand_as(how.key), atol=1e-5)
        assert torch.allclose(how.key[0], eye, atol=1e-6)
        assert not torch.allclose(how.key[1], eye, atol=1e-2)


def test_a_rotation_in_part_leaves_the_other_channels() -> None:
    how = next(iter(wiring("stablelm").compared.values()))
    turned = int(how.key.shape[-1] * loaded("stablelm").hf.config.rope_parameters["partial_rotary_factor"])
    rest = how.key[:, turned:]
    assert torch.equal(rest, torch.eye(how.key.shape[-1])[turned:].expand_as(rest))


@pytest.mark.parametrize("name", ["opt", "gpt_neo"])
def test_without_rotations_there_is_one_multiple_of_the_identity(name: str) -> None:
    for how in wiring(name).compared.values():
        for R in (how.query, how.key):
            assert torch.allclose(R, R[0, 0, 0] * torch.eye(R.shape[-1]), atol=1e-6)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "olmo2", "gemma3_text"])
def test_normed_queries_and_capped_scores_are_pulled(name: str) -> None:
    found = wiring(name)
    assert not found.compared
    ends = {source: route for (target, source), route in found.routes.items() if target == "1.attn.o"}
    assert ends["1.attn.q"] == ends["1.attn.k"] == "backward"
    assert ends["1.attn.v"] == "values"
