"""Closed forms beside the backward passes that they stand for, on every family with named matrices."""

from dataclasses import replace

import pytest
import torch

from circuit_cases import Wide
from dataset_parts import random_parts, summed, wired
from families import EVERY, loaded
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS

WITHOUT_MATRICES = ("mamba", "mamba2")
SHORT = ("gptj", "falcon", "cohere", "gemma3_text", "olmo2", "qwen2_moe")  # of unlike makes
LONG = tuple(name for name in EVERY if name not in (*WITHOUT_MATRICES, *SHORT))


def check(name: str, dtype: torch.dtype, bound: float, options: Options) -> None:
    """Of the largest number of a target's blocks; what cancels to nothing is left out by the float's own size."""
    model = loaded(name, dtype)
    wiring = wired(model, random_parts(model, 2), options)
    found, pulled = summed(wiring), summed(replace(wiring, routes=dict.fromkeys(wiring.routes, "backward")))
    assert set(pulled) == set(found)
    largest: dict[tuple[str, str], float] = {}
    for (target, _), sums in pulled.items():
        for metric, block in sums.items():
            largest[target, metric] = max(largest.get((target, metric), 0.0), float(block.abs().max()))
    for pair, sums in found.items():
        for metric, block in sums.items():
            gap = float((block - pulled[pair][metric]).abs().max())
            assert gap <= bound * largest[pair[0], metric] + bound / 100, (pair, metric, gap)


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_closed_forms_are_the_backward_passes_that_they_stand_for(name: str) -> None:
    check(name, torch.float32, 1e-4, Options(METRICS, weighting="both", least=0.2))


@pytest.mark.parametrize("name", ["gemma2", "bloom"])
def test_so_they_are_with_live_norms(name: str) -> None:
    with Wide():  # a live norm cancels what it is given alone, of which float32 leaves nothing
        check(name, torch.float64, 1e-8, Options(METRICS, live=True))


def test_and_in_bfloat16_to_its_precision() -> None:
    check("llama", torch.bfloat16, 0.05, Options(METRICS))
