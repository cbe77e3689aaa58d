"""Where queries find the blocks of dataset attributions: what a store offers, and one that is held in memory.

Cost: that of the blocks. Knows nothing of files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from whence.progress import Progress, silent
from whence.results.dataset_axes import Header

Pair = tuple[str, str]  # target site, source site


@runtime_checkable
class Blocks(Protocol):
    """Raw sums by pair of sites and statistic."""

    @property
    def header(self) -> Header:
        """Everything but the blocks."""
        ...

    def has(self, target: str, source: str) -> bool:
        """Whether there is a block from one site to the other."""
        ...

    def top(self, target: str, source: str) -> int | None:
        """How many columns of each row were kept of this block; None: all."""
        ...

    def block(self, target: str, source: str, statistic: str) -> Float[Tensor, "row column"]:
        """A whole block, mapped rather than copied where it lies in a file."""
        ...

    def row(self, target: str, source: str, statistic: str, i: int) -> Float[Tensor, " column"]:
        """One target's row of it."""
        ...

    def column(self, target: str, source: str, statistic: str, j: int) -> Float[Tensor, " row"]:
        """One source's column of it."""
        ...

    def extra(self, name: str) -> Tensor | None:
        """A tensor kept beside the blocks; None if there is none of this name."""
        ...

    def verify(self, progress: Progress = ...) -> Any:
        """Refuse what is damaged."""
        ...


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Blocks held in memory.

    Args:
        header: Axes, tokens, windows, statistics.
        blocks: Pair of sites -> statistic -> raw sums, [row of the target site, column of the source site].
        extras: Other tensors by name: "unembedding" [vocab, d_model], "gram" [d_model, d_model].

    Raises:
        ValueError: A pair or a statistic of the header without its block, or a block of another shape.
    """

    header: Header
    blocks: Mapping[Pair, Mapping[str, Float[Tensor, "_ _"]]]
    extras: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        self.verify()

    def has(self, target: str, source: str) -> bool:
        """Whether there is a block from one site to the other."""
        return (target, source) in self.blocks

    def top(self, target: str, source: str) -> int | None:
        """Every column is kept."""

    def block(self, target: str, source: str, statistic: str) -> Float[Tensor, "row column"]:
        """A whole block."""
        return self.blocks[target, source][statistic]

    def row(self, target: str, source: str, statistic: str, i: int) -> Float[Tensor, " column"]:
        """One target's row of it."""
        return self.blocks[target, source][statistic][i]

    def column(self, target: str, source: str, statistic: str, j: int) -> Float[Tensor, " row"]:
        """One source's column of it."""
        return self.blocks[target, source][statistic][:, j]

    def extra(self, name: str) -> Tensor | None:
        """A tensor kept beside the blocks."""
        return self.extras.get(name)

    def verify(self, progress: Progress = silent) -> None:
        """Refuse blocks that are not what the header says."""
        for done, pair in enumerate(self.header.pairs, 1):
            shape = (len(self.header.targets[pair[0]].ids), len(self.header.sources[pair[1]].ids))
            found = {name: tuple(block.shape) for name, block in self.blocks.get(pair, {}).items()}
            for statistic in self.header.of(pair):
                if found.get(statistic) != shape:
                    said = f"{statistic} of {pair[1]} -> {pair[0]}"
                    raise ValueError(f"{said} must be a block of shape {shape}, got {found.get(statistic)}.")
            progress("verify", done, len(self.header.pairs))
