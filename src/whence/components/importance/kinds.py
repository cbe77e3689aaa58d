"""The kinds of importance network: what each makes of the inputs of all matrices.

    mlp                        a network a component, given its activation       {site}.{n}.W [component, in, out]
    vector_mlp                 a network a component, given the input            the same
    shared_mlp                 a network a matrix, given the input               {site}.{n}.W [in, out]
    global_mlp                 one network, given all inputs end to end          {n}.W
    global_transformer         each input normed, end to end, projected (input), blocks of attention and a perceptron
                               (block.{n}.attn.q, block.{n}.mlp.0.W), then read (output)
    global_reverse_residual    groups of matrices in turn: h += input(x); but for the last group, h += attn(norm h)
                               where there is one, and h += transition(norm h); importances = reader(norm h)

Each gives numbers before the sigmoid, by site. Cost: the products. Positions see one another in the last two, with no
mask: padding would be seen too.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from whence.components.importance.layers import attention, normed, one_for_each, perceptron

Inputs = Mapping[str, Tensor]  # [example, pos, in] by site
Kind = Callable[[Inputs, Mapping[str, Tensor], Mapping[str, int], Mapping[str, Any]], dict[str, Tensor]]


def _mlp(read: Inputs, tensors: Inputs, counts: Mapping[str, int], _: Mapping[str, Any]) -> dict[str, Tensor]:
    return {site: one_for_each(read[site][..., None], tensors, f"{site}.")[..., 0] for site in counts}


def _vector_mlp(read: Inputs, tensors: Inputs, counts: Mapping[str, int], _: Mapping[str, Any]) -> dict[str, Tensor]:
    return {site: one_for_each(read[site][..., None, :], tensors, f"{site}.")[..., 0] for site in counts}


def _shared_mlp(read: Inputs, tensors: Inputs, counts: Mapping[str, int], _: Mapping[str, Any]) -> dict[str, Tensor]:
    return {site: perceptron(read[site], tensors, f"{site}.") for site in counts}


def _global_mlp(read: Inputs, tensors: Inputs, counts: Mapping[str, int], _: Mapping[str, Any]) -> dict[str, Tensor]:
    together = torch.cat([read[site] for site in counts], dim=-1)
    return _apart(perceptron(together, tensors, ""), counts)


def _global_transformer(
    read: Inputs, tensors: Inputs, counts: Mapping[str, int], settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    x = perceptron(torch.cat([normed(read[site]) for site in counts], dim=-1), tensors, "input.")
    for n in range(settings["blocks"]):
        x = x + attention(normed(x), tensors, f"block.{n}.attn.", settings["heads"], settings["rope_base"])
        x = x + perceptron(normed(x), tensors, f"block.{n}.mlp.")
    return _apart(perceptron(x, tensors, "output."), counts)


def _global_reverse_residual(
    read: Inputs, tensors: Inputs, counts: Mapping[str, int], settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    groups, found, stream = settings["groups"], dict[str, Tensor](), 0
    for n, sites in enumerate(groups):
        at = f"group.{n}."
        stream = stream + perceptron(torch.cat([read[site] for site in sites], dim=-1), tensors, f"{at}input.")
        if n < len(groups) - 1:
            stream = _passed_on(stream, tensors, at, settings)
        said = perceptron(normed(stream, tensors[f"{at}reader_norm"]), tensors, f"{at}reader.")
        found |= _apart(said, {site: counts[site] for site in sites})
    return found


def _passed_on(stream: Tensor, tensors: Inputs, at: str, settings: Mapping[str, Any]) -> Tensor:
    if settings["heads"] is not None:
        inner = normed(stream, tensors[f"{at}attn_norm"])
        stream = stream + attention(inner, tensors, f"{at}attn.", settings["heads"], settings["rope_base"])
    return stream + perceptron(normed(stream, tensors[f"{at}transition_norm"]), tensors, f"{at}transition.")


def _apart(together: Tensor, counts: Mapping[str, int]) -> dict[str, Tensor]:
    return dict(zip(counts, together.split(list(counts.values()), dim=-1), strict=True))


KINDS: dict[str, Kind] = {
    "mlp": _mlp,
    "vector_mlp": _vector_mlp,
    "shared_mlp": _shared_mlp,
    "global_mlp": _global_mlp,
    "global_transformer": _global_transformer,
    "global_reverse_residual": _global_reverse_residual,
}
