"""Which tokens of a running forward pass an intervention is about, and what it does to the values found there.

Values come as lines, one for each (example, position) that is meant, in that order. Cost: one mask a hook.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from whence.interventions.kinds import Positions
from whence.model.attention import Attention

Exchange = Callable[[Tensor, Int[Tensor, " line"]], Tensor | None]  # (values, positions) -> new values, None: as it is
Turn = tuple[Positions, Exchange]  # where, None for all positions, and what is done there


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
        turns: what is done, one after the other: each is given what those before it left.
        looks: whether it only looks, and so does also in a clean pass.
    """

    run: Pass
    row: int | None
    turns: Sequence[Turn]
    looks: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is to be exchanged in this pass."""
        return self.run.clean and not self.looks

    def mask(self, examples: int, length: int, device: torch.device) -> Bool[Tensor, "example pos"]:
        """True where this seat is, in the tokens of this pass."""
        absolute = torch.arange(self.run.start, self.run.start + length, device=device).expand(examples, length)
        ends = self.run.lengths.to(device).expand(examples)[:, None]
        found = torch.stack([_within(absolute, ends, positions) for positions, _ in self.turns]).any(0)
        if self.run.start == 0:
            found = found & (absolute < ends)
        if self.row is not None and examples > 1:  # the one clean row serves every changed one
            found = found & (torch.arange(examples, device=device)[:, None] == self.row)
        return found

    def swap(self, values: Tensor, mask: Bool[Tensor, "example pos"]) -> Tensor | None:
        """The new values of these lines; None to leave them."""
        where = mask.nonzero()[:, 1] + self.run.start
        if len(self.turns) == 1:
            return self.turns[0][1](values, where)
        absolute = (torch.arange(mask.shape[1], device=mask.device) + self.run.start).expand(mask.shape)
        ends = self.run.lengths.to(mask.device).expand(len(mask))[:, None]
        left = values.clone()
        for positions, exchange in self.turns:
            lines = _within(absolute, ends, positions)[mask]
            new = exchange(left[lines], where[lines]) if bool(lines.any()) else None
            if new is not None:
                left[lines] = new.to(left)
        return left


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


def meant(positions: Positions, length: int) -> list[int]:
    """The positions of a prompt of this length that are meant, none outside it.

    Example:
        >>> meant(slice(-2, None), 5), meant(-1, 5)
        ([3, 4], [4])
    """
    every = list(range(length))
    if positions is None or isinstance(positions, slice):
        return every if positions is None else every[positions]
    return [every[position] for position in ([positions] if isinstance(positions, int) else positions)]


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
