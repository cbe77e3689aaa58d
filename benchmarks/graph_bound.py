"""What exact back-transport costs at least, in floating-point operations: the yardstick of graph.py.

A target reads at layer l and position p. Its direction goes back through attention of layer l (one row through W_O,
mixed over p + 1 keys, p + 1 rows through W_V), then through every lower layer for all p + 1 positions:

    first hop    2 d h d_h + 2 h d_h (p + 1) + 2 (p + 1) d g d_h           h query heads, g key heads of width d_h
    lower layer  2 (p + 1) d h d_h + h d_h (p + 1)(p + 2) + 2 (p + 1) d g d_h

and is read against every source below it at positions up to p: 2 d each. With h = g and h d_h = d a lower layer is
4 (p + 1) d² and the mixing. A logit reads after the last layer, where only its own position counts. Algebra that merges
steps (embeddings projected once, one row for the first position) can do with less: this is a yardstick, no law.
"""

import torch
from torch import Tensor

from graph_model import Shape


def transport_flops(shape: Shape, layer: int, position: int) -> int:
    """One direction's way back from the MLP input of `layer`."""
    d, queries, keys = shape.d_model, shape.heads * shape.d_head, shape.key_heads * shape.d_head
    n = position + 1
    first = 2 * d * queries + 2 * queries * n + 2 * n * d * keys
    lower = 2 * n * d * queries + queries * n * (n + 1) + 2 * n * d * keys
    return first + layer * lower


def flops(shape: Shape, nodes: Tensor, active: Tensor) -> dict[str, int]:
    """Operations for a graph's features and logits, by part.

    Args:
        shape: sizes.
        nodes: features that are attributed, [layer, position].
        active: features that are sources, likewise.
    """
    below = sources_below(active)
    last, logits = shape.length - 1, shape.targets
    transport = logits * transport_flops(shape, shape.layers - 1, last)
    top = int(active[-1, last]) + 1  # of the last layer a logit sees its own position's features and error
    dots = logits * 2 * shape.d_model * (int(below[shape.layers - 1, last]) + top)
    for layer, position in nodes.nonzero().tolist():
        n = int(nodes[layer, position])
        transport += n * transport_flops(shape, layer, position)
        dots += n * 2 * shape.d_model * int(below[layer, position])
    return {"transport": transport, "dots": dots}


def sources_below(active: Tensor) -> Tensor:
    """How many sources a target at [layer, position] has: features and errors of lower layers, and tokens."""
    made = torch.cat([torch.ones_like(active[:1]), active[:-1] + 1])
    return made.cumsum(0).cumsum(1)


def gemm(size: int = 1024, repeats: int = 8) -> Tensor:
    """The work that a process's speed is measured on."""
    a = torch.ones(size, size)
    for _ in range(repeats):
        b = a @ a
    return b


GEMM_FLOPS = 8 * 2 * 1024**3
