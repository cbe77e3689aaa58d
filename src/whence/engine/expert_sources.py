"""Chosen experts as constant sources: what each adds to the stream at each position, routing as recorded.

    write[p] = sum over chosen e of weight[p, e] (W_down[e] h + b_down[e])

Cost: the chosen experts once more. Packed experts that cannot be told apart stay one source a position.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.maps import NormAt
from whence.engine.stream import Group
from whence.errors import UnsupportedModelError
from whence.model.experts import bias_of, down_map, expert_sizes, has_bias, neurons
from whence.model.trace import Routed, Write


def is_apart(write: Write) -> bool:
    """Whether a mixture's experts can be told apart, and nothing nonlinear joins them again."""
    try:
        expert_sizes(write.writer.write)
    except UnsupportedModelError:
        return False
    return isinstance(write.input, Routed) and write.writer.post_norm is None


def experts_apart(write: Write, exit: NormAt, length: int) -> tuple[Group, Float[Tensor, "node d_model"]]:
    """A node for each chosen expert of each position, and what it writes."""
    routed, experts = write.input, write.writer.write
    assert isinstance(routed, Routed)
    count = expert_sizes(experts)[0]
    lines, choices = torch.where(routed.index < count)  # what lies above marks "no expert here"
    index = routed.index[lines, choices]
    vectors = exit.inverse.new_zeros(len(lines), write.output.shape[-1])
    for expert in index.unique().tolist():
        mine = torch.where(index == expert)[0]
        vectors[mine] = _writes(experts, expert, routed.input[lines[mine]], vectors)
    weight = routed.weight[lines, choices].to(vectors) * exit.inverse[lines]
    starts = torch.searchsorted(lines.contiguous().cpu(), torch.arange(length + 1)).tolist()
    return Group("moe.expert", write.writer.layer, index.cpu(), starts), vectors * weight[:, None]


def _writes(experts: torch.nn.Module, expert: int, x: Tensor, like: Tensor) -> Float[Tensor, "line d_model"]:
    written = neurons(experts, expert, x).to(like) @ down_map(experts, expert, like).T
    return written + bias_of(experts, expert, like) if has_bias(experts) else written
