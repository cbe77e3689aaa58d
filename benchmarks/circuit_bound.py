"""What node effects and direct edges cost at least, in floating-point operations: the yardstick of circuit.py.

    effects   one forward and one backward pass, 2 + 2 operations a weight and token, attention's products with
              patterns, logits at the last position; and of every site features and reconstructions of both prompts,
              and the gradient along every decoder: five products with F directions of width d a token
    edges     a kept node is one row of width d: of an MLP back through it (one product forward, one back:
              2 · 2 · 8 d²), of attention back to queries, keys and values (a row through W_O, patterns over s
              positions, 3 rows), of what attention reads forward to all three (2 · 3 d²); and a product of width d
              (3 d across attention) for every pair of nodes of one example that can have an edge

With width 4 d of an MLP. Integrated gradients cost the forward and backward pass of what lies behind a site, at every
step. Algebra can do with less (a feature that is off needs no product): this is a yardstick, no law.
"""

from torch import Tensor

from circuit_model import Shape


def block_flops(shape: Shape) -> int:
    """One block forward, for one prompt."""
    d, s = shape.d_model, shape.length
    return 2 * 12 * d * d * s + 2 * 2 * d * s * s


def effect_flops(shape: Shape, steps: int = 0) -> int:
    """Effects of every node: attribution patching, or integrated gradients in so many steps."""
    blocks, logits = block_flops(shape), 2 * shape.d_model * shape.vocab
    directions = 5 * 2 * shape.d_model * shape.features * shape.length * len(shape.sites)
    runs = shape.layers * blocks + logits
    if not steps:
        return shape.pairs * (3 * runs + directions)  # the patched prompts go forward as well
    behind = [shape.layers - 1 - i for i in range(shape.layers) for _ in range(3)] + [shape.layers]
    paths = sum(2 * steps * (count * blocks + logits) for count in behind)
    return shape.pairs * (2 * runs + paths + directions)


def edge_flops(shape: Shape, kept: dict[str, Tensor]) -> int:
    """Edges between kept nodes.

    Args:
        shape: sizes.
        kept: how many are kept at [pair, position] of every site.
    """
    d, s = shape.d_model, shape.length
    total = 0
    for i in range(shape.layers):
        before = kept[f"resid_{i - 1}" if i else "embed"]
        attn, mlp, resid = (kept[f"{kind}_{i}"] for kind in ("attn", "mlp", "resid"))
        total += int(mlp.sum()) * 2 * 2 * 8 * d * d
        total += int(attn.sum()) * (2 * d * d + 2 * 2 * s * d + 2 * 3 * d * d) + int(before.sum()) * 2 * 3 * d * d
        total += 2 * d * int((resid * (before + attn + mlp) + mlp * before).sum())
        total += 2 * 3 * d * int((attn * before.cumsum(1)).sum())
    return total
