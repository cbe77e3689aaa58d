"""Norms, attention and skips as maps: pulling back is the transpose of pushing forward."""

import pytest
import torch
from torch import Tensor

from families import loaded, prompts
from graphs import linearized, transcoders
from whence.engine import maps
from whence.engine.maps import AttentionMap, NormAt, SkipMap, runs
from whence.engine.workspace import Workspace
from whence.model.norms import NormMap

POS, WIDTH, GROUPS, SHARE, D_HEAD = 5, 6, 2, 2, 3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attention() -> AttentionMap:
    causal = torch.ones(POS, POS, dtype=torch.float64).tril()  # query, key
    pattern = random(GROUPS, POS, SHARE, POS).abs() * causal.T[:, None]
    pattern = pattern.transpose(2, 3).contiguous()
    return AttentionMap(
        random(WIDTH, GROUPS * SHARE * D_HEAD), random(GROUPS, D_HEAD, WIDTH), pattern, random(POS, WIDTH)
    )


def by_heads(one: AttentionMap, x: Tensor) -> Tensor:
    """Sum over heads and keys, one at a time."""
    out = torch.zeros(POS, WIDTH, dtype=torch.float64)
    columns = one.output.view(WIDTH, GROUPS, SHARE, D_HEAD)
    for g in range(GROUPS):
        for r in range(SHARE):
            for q in range(POS):
                for k in range(q + 1):
                    out[q] += one.pattern[g, k, q, r] * columns[:, g, r] @ (one.value[g] @ x[k])
    return out


def test_push_sums_over_heads_and_keys() -> None:
    one, x = attention(), random(POS, WIDTH, seed=1)
    assert torch.allclose(one.push(x), by_heads(one, x))


@pytest.mark.parametrize("at_once", [1, 2, 128])
def test_a_covector_below_reads_what_it_read_above(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MIXED_AT_ONCE", at_once)
    one, x, covector = attention(), random(POS, WIDTH, seed=1), random(POS, 4, WIDTH, seed=2)
    below = torch.zeros_like(covector)
    one.add_pulled(covector, below)
    above = (covector * by_heads(one, x)[:, None]).sum((0, 2))
    assert torch.allclose((below * x[:, None]).sum((0, 2)), above)


def test_covectors_at_one_position_each_are_spread_over_the_keys_they_see() -> None:
    one, position = attention(), [1, 1, 4]
    covector = random(3, WIDTH, seed=2)
    full = torch.zeros(POS, 3, WIDTH, dtype=torch.float64)
    full[position, torch.arange(3)] = covector
    below = torch.zeros_like(full)
    one.add_pulled(full, below)
    assert torch.allclose(one.pull_one(covector, position, POS, Workspace()), below)


def test_pairs_split_a_push_by_key() -> None:
    one, x = attention(), random(POS, WIDTH, seed=1)
    pairs = one.pairs(x)
    assert [len(pair) for pair in pairs] == list(range(1, POS + 1))
    for k in range(POS):
        alone = torch.zeros_like(x)
        alone[k] = x[k]
        received = by_heads(one, alone)
        assert all(torch.allclose(pairs[q][k], received[q]) for q in range(k, POS))


@pytest.mark.parametrize("centred", [True, False])
def test_a_norms_pull_is_the_transpose_of_its_push(centred: bool) -> None:
    norm = NormAt(NormMap(random(WIDTH), random(WIDTH, seed=1), centred), random(POS, seed=2).abs())
    x, covector = random(POS, WIDTH, seed=3), random(POS, WIDTH, seed=4)
    pulled = norm.pull(covector, slice(None))
    assert torch.allclose((pulled * x).sum(1), (covector * norm.push(x)).sum(1))
    bare = norm.pull(covector, slice(None), gain=False)
    centre = x - x.mean(1, keepdim=True) if centred else x
    assert torch.allclose((bare * x).sum(1), (covector * centre).sum(1) * norm.inverse)


def test_no_norm_is_the_identity_times_a_multiplier() -> None:
    norm, x = NormAt(None, torch.full((POS,), 0.5, dtype=torch.float64), 0.5), random(POS, WIDTH)
    assert torch.equal(norm.push(x), 0.5 * x)
    assert torch.equal(norm.pull(x, slice(None)), 0.5 * x)
    assert norm.bias == 0


def test_a_skips_pull_is_the_transpose_of_its_push() -> None:
    skip = SkipMap(random(WIDTH, WIDTH), random(POS, seed=1), random(POS, WIDTH))
    x, covector = random(POS, WIDTH, seed=3), random(POS, WIDTH, seed=4)
    pulled = skip.pull(covector, skip.scale[:, None])
    assert torch.allclose((pulled * x).sum(1), (covector * skip.push(x)).sum(1))


def test_runs_are_stretches_of_one_position() -> None:
    assert runs([0, 0, 3, 4, 4, 4]) == [(0, 0, 2), (3, 2, 3), (4, 3, 6)]


@pytest.mark.parametrize("name", ["llama", "gemma2 window", "granite", "gpt2"])
def test_stages_push_the_sources_of_a_prompt_to_the_models_own_final_stream(name: str) -> None:
    model, ids = loaded(name, torch.float64), prompts(1, 7)
    linear = linearized(model, ids, transcoders(model, skip=True), (0,))
    stream = linear.stream
    x = sum(sources.at(0, stream.length) for sources in stream.bottom)
    for stage in stream.stages:
        added = torch.zeros_like(x) if stage.constant is None else stage.constant.clone()
        if stage.attention is not None:
            added += stage.attention.push(x) + stage.attention.constant
        for skip in stage.skips:
            added += skip.push(x) + skip.constant
        for sources in stage.sources:
            group = stream.groups[sources.group]
            added.index_add_(0, group.position(), sources.at(0, len(group)))
        x = x + added
    own = linear.run.final.input[0]
    assert (x - own).abs().max() < 1e-6 * own.abs().max()
