"""What one forward pass tells of every site: what its units read and say, and in a cut pass the leaves that they are.

A site reports `read` (what its target units read, y) and `leaf` (what its source units or vectors are, x). Recording
keeps their values. Cutting makes each leaf the start of its own graph, and the model's values stay bit for bit:

    tensor' = tensor.detach() + (lin - lin.detach()),    lin = what the leaves write together

so that the gradient of a y with respect to a leaf is that of the direct path alone. Cost: one forward pass; cutting
keeps its graph. Knows nothing of what is summed.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from whence.model.hooks import After, Before, first_tensor
from whence.model.sites import by_example

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(eq=False)
class Tape:
    """One pass.

    Args:
        length: positions of each row.
        dtype: what is computed in.
        cutting: make leaves.
        complete: let the model run as it is; otherwise without what components miss of their matrices (`delta`).
    """

    length: int
    dtype: torch.dtype
    cutting: bool = False
    complete: bool = True
    leaves: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # [example, pos, unit or channel]
    values: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # [example, pos, unit]
    inputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # of matrices, as the model computed them
    around: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict[nn.Module, tuple[Tensor, Tensor]])
    outputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # of matrices, as they went on
    calls: dict[nn.Module, Call] = field(default_factory=dict[nn.Module, Call])  # what MLPs were called with

    def of(self, tensor: Tensor) -> Tensor:
        """A tensor of the model as [example, pos, ...], in the working dtype."""
        return by_example(tensor, self.length).to(self.dtype)

    def leaf(self, site: str, value: Tensor) -> Tensor:
        """The value, as a leaf when cutting."""
        value = value.detach()
        self.leaves[site] = value.requires_grad_() if self.cutting else value
        return self.leaves[site]

    def joined(self, tensor: Tensor, written: Tensor) -> Tensor | None:
        """What takes the place of a tensor that the leaves write together; None leaves it."""
        if not self.complete:
            return written.reshape(tensor.shape).to(tensor.dtype)
        if not self.cutting:
            return None
        step = (written - written.detach()).reshape(tensor.shape)
        return tensor.detach() + step.to(tensor.dtype)

    def keep_around(self, module: nn.Module) -> tuple[nn.Module, After]:
        """A hook that keeps what a norm was given and what it made of it."""
        of, around = self.of, self.around
        return module, lambda args, kwargs, output: around.update(
            {module: (of(first_tensor(args, kwargs)).detach(), of(output).detach())}
        )

    def keep_call(self, module: nn.Module) -> tuple[nn.Module, Before]:
        """A hook that keeps what a module was called with."""
        return module, lambda args, kwargs: self.calls.update({module: (args, kwargs)})
