"""What importance networks are built of, as pure functions of named weights.

    perceptron            y = W_n ... gelu(x W_0 + b_0) ... + b_n           W [in, out]
    one for each          the same for every component c                    W [component, in, out]
    attention             both ways, rotary queries and keys, no biases     q, k, v, o [out, in]

The layers of a perceptron are named `{prefix}0.W`, `{prefix}0.b`, `{prefix}1.W` and so on; a GELU (the exact one)
stands between them. Cost: that of the products. Knows nothing of models.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def perceptron(
    x: Float[Tensor, "*batch into"], tensors: Mapping[str, Tensor], prefix: str
) -> Float[Tensor, "*batch out"]:
    """What one network makes of vectors.

    Example:
        >>> perceptron(torch.ones(1, 2), {"0.W": torch.eye(2), "0.b": torch.ones(2)}, "")
        tensor([[2., 2.]])
    """
    for n in range(depth(tensors, prefix)):
        x = (functional.gelu(x) if n else x) @ tensors[f"{prefix}{n}.W"] + tensors[f"{prefix}{n}.b"]
    return x


def one_for_each(
    x: Float[Tensor, "*batch _ into"], tensors: Mapping[str, Tensor], prefix: str
) -> Float[Tensor, "*batch component out"]:
    """What as many networks as there are components make of a vector each, or all of the same one.

    Example:
        >>> weights = {"0.W": torch.tensor([[[1.0]], [[2.0]]]), "0.b": torch.zeros(2, 1)}
        >>> one_for_each(torch.tensor([[3.0]]), weights, "")
        tensor([[3.],
                [6.]])
    """
    for n in range(depth(tensors, prefix)):
        x = functional.gelu(x) if n else x
        x = torch.einsum("...ci,cio->...co", x, tensors[f"{prefix}{n}.W"]) + tensors[f"{prefix}{n}.b"]
    return x


def depth(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Layers that a perceptron has.

    Raises:
        KeyError: None.
    """
    found = 0
    while f"{prefix}{found}.W" in tensors:
        found += 1
    if not found:
        raise KeyError(f"{prefix}0.W")
    return found


def attention(
    x: Float[Tensor, "*batch pos width"], tensors: Mapping[str, Tensor], prefix: str, heads: int, base: float
) -> Float[Tensor, "*batch pos width"]:
    """What every position gathers from all positions, before and after it."""
    q, k, v = (_split(x @ tensors[f"{prefix}{end}"].T, heads) for end in "qkv")
    gathered = functional.scaled_dot_product_attention(_rotated(q, base), _rotated(k, base), v)
    return gathered.transpose(-3, -2).flatten(-2) @ tensors[f"{prefix}o"].T


def normed(x: Float[Tensor, "*batch width"], gain: Tensor | None = None) -> Float[Tensor, "*batch width"]:
    """Vectors over their root mean square, times a gain."""
    return functional.rms_norm(x, (x.shape[-1],), gain)


def _split(x: Float[Tensor, "*batch pos width"], heads: int) -> Float[Tensor, "*batch head pos part"]:
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _rotated(x: Float[Tensor, "*batch pos part"], base: float) -> Float[Tensor, "*batch pos part"]:
    """Pairs (j, j + half) turned by position / base^(2 j / part)."""
    half, places = x.shape[-1] // 2, torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)
    speeds = 1.0 / base ** (torch.arange(0, 2 * half, 2, device=x.device, dtype=x.dtype) / (2 * half))
    angles = places[:, None] * speeds
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
