import torch

from dataset_parts import random_parts, small, wired
from whence.engine.dataset.footprint import batch_bytes
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS

WIDTH, LAYERS, LOGITS = 16, 2, 2


def test_four_copies_of_what_every_token_reads_and_writes() -> None:
    wiring = wired(small("llama biased"), ["attn", "mlp"], Options(METRICS))
    vectors = 1 + 2 * LAYERS  # embeddings and sublayers
    assert batch_bytes(wiring, 3, 5) == 4 * 8 * 3 * 5 * (vectors * WIDTH + WIDTH + LOGITS)


def test_patterns_grow_with_the_square_of_the_length() -> None:
    model = small("llama biased")
    wiring = wired(model, random_parts(model, only=("attn.v", "attn.o")), Options(METRICS))
    heads, at = 4 * LAYERS, [torch.tensor(batch_bytes(wiring, 1, length)) for length in (8, 16, 32)]
    assert at[2] - 4 * at[1] + 2 * at[0] * 2 == 4 * 8 * heads * (32**2 - 4 * 16**2 + 4 * 8**2)
