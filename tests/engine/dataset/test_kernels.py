from typing import Any

import pytest
import torch

from circuit_cases import Wide
from dataset_families import FAMILIES, Places
from dataset_oracle import Blocks
from dataset_parts import TOKENS, random_parts, rows, small, summed, wired
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS, STREAM

EXACT = 1e-9  # of a block's largest number
CANCELS = 1e-12  # what is nothing but rounding: all keys moved alike, sources that a live norm divides out
SETTINGS: tuple[dict[str, Any], ...] = (
    {"live": False},
    {"live": True},
    {"live": False, "weighting": "source", "least": 0.3},
    {"live": True, "weighting": "target", "least": 0.3},
    {"live": True, "weighting": "both"},
    {"live": False, "weighting": "both", "least": 0.2},
    {"live": False, "weighting": "none", "spd": True},
    {"live": True, "weighting": "both", "spd": True},
)
CASES = [(name, one) for name in FAMILIES for one in (SETTINGS if name == "llama biased" else SETTINGS[-3::2])]


def lines() -> list[torch.Tensor]:
    batch = rows()
    return [row[:n] for row, n in zip(batch.ids, batch.lengths.tolist(), strict=True)]


def compare(found: Blocks, truth: Blocks, *, spd: bool = False) -> None:
    """The same pairs, and the same numbers in every block of every metric."""
    assert set(found) == set(truth)
    for pair, sums in found.items():
        assert tuple(sums) == (METRICS if spd or pair[0] != STREAM else ("attr",))
        for metric, block in sums.items():
            own = truth[pair][metric]
            assert block.shape == own.shape
            gap = (block - own).abs().max()
            assert gap <= EXACT * own.abs().max() + CANCELS, (pair, metric, float(gap), float(own.abs().max()))


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_every_block_is_the_sum_over_backward_passes_of_each_target_at_each_position(
    name: str, settings: dict[str, Any]
) -> None:
    model = small(name)
    parts = random_parts(model)
    with Wide():
        found = summed(wired(model, parts, Options(METRICS, **settings)))
        truth = Places(name, model.hf).oracle(parts, torch.unique(rows().ids), TOKENS).blocks(lines(), **settings)
    compare(found, truth, spd=settings.get("spd", False))


@pytest.mark.parametrize(
    ("name", "live"), [("llama biased", True), ("opt", False), ("gemma", False), ("granite", False)]
)
def test_decomposed_embeddings_are_sources_and_decomposed_unembeddings_targets(name: str, live: bool) -> None:
    model = small(name)
    parts = random_parts(model, ends=True)
    settings: dict[str, Any] = {"live": live, "weighting": "both", "least": 0.2}
    with Wide():
        found = summed(wired(model, parts, Options(METRICS, **settings)))
        truth = Places(name, model.hf).oracle(parts, torch.unique(rows().ids), TOKENS).blocks(lines(), **settings)
    assert ("0.attn.q", "embed.matrix") in found
    assert ("output.matrix", "1.attn.o") in found
    assert not any(STREAM in pair or "embed" in pair for pair in found)
    compare(found, truth)
