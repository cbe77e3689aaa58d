"""Which tokens of a running forward pass an intervention is about, and what it does to the values found there.

Values come as lines, one for each (example, position) that is meant, in that order. Cost: one mask a hook.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from whence.interventions.kinds import Positions
from whence.model.attention import Attention

Exchange = Callable[[Tensor, Int[Tensor, " line"]], Tensor | None]  # (values, positions) -> new values, None: as it is


@dataclass(eq=False)
class Pass:
    """The state of the forward passes a set of hooks lives through.

    Args:
        lengths: real tokens of each example's prompt.
        held: layers whose sublayers' outputs are held; what was active there is what was active when held.
    """

    lengths: Int[Tensor, " example"]
    held: frozenset[int] = frozenset()
    clean: bool = False  # this pass is only looked at
    start: int = 0  # position of this pass's first token
    attention: dict[nn.Module, Attention] = field(default_factory=dict[nn.Module, Attention])


@dataclass(eq=False)
class Seat:
    """Tokens of one example, or of all, and what is done there.

    Args:
        run: the passes it lives through.
        row: the example; None for every one.
        positions: None for all.
        exchange: takes values, gives new ones.
        looks: whether it only looks, and so does also in a clean pass.
    """

    run: Pass
    row: int | None
    positions: Positions
    exchange: Exchange
    looks: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is to be exchanged in this pass."""
        return self.run.clean and not self.looks

    def mask(self, examples: int, length: int, device: torch.device) -> Bool[Tensor, "example pos"]:
        """True where this seat is, in the tokens of this pass."""
        absolute = torch.arange(self.run.start, self.run.start + length, device=device).expand(examples, length)
        ends = self.run.lengths.to(device).expand(examples)[:, None]
        found = _within(absolute, ends, self.positions)
        if self.run.start == 0:
            found = found & (absolute < ends)
        if self.row is not None and examples > 1:  # the one clean row serves every changed one
            found = found & (torch.arange(examples, device=device)[:, None] == self.row)
        return found

    def swap(self, values: Tensor, mask: Bool[Tensor, "example pos"]) -> Tensor | None:
        """The new values of these lines; None to leave them."""
        return self.exchange(values, mask.nonzero()[:, 1] + self.run.start)


def _within(absolute: Tensor, ends: Tensor, positions: Positions) -> Tensor:
    if positions is None:
        return torch.ones_like(absolute, dtype=torch.bool)
    if isinstance(positions, slice):
        low, high = (None if edge is None else _from_start(edge, ends) for edge in (positions.start, positions.stop))
        after = absolute >= (0 if low is None else low)
        return after if high is None else after & (absolute < high)
    asked = [positions] if isinstance(positions, int) else positions
    masks = [absolute == _from_start(position, ends) for position in asked]
    return torch.stack(masks).any(0)


def _from_start(position: int, ends: Tensor) -> Tensor | int:
    return ends + position if position < 0 else position


def refuse_outside(what: object, positions: Positions, length: int) -> None:
    """Refuse a position that a prompt does not have; a slice may begin past its end, for tokens to come.

    Raises:
        ValueError: naming the position and the length.
    """
    if positions is None or isinstance(positions, slice):
        return
    for position in [positions] if isinstance(positions, int) else positions:
        if not -length <= position < length:
            raise ValueError(f"{what}: position {position} is outside the prompt, which has {length} tokens")
