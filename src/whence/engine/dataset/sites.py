"""The sites of a dataset run: what their units read, what they write, and how a pass is told of them.

    y_t = V_t · (what is read there) + constant        a_s U_s, or a vector, is written

Times order what happens to the stream: the sublayers of stage d read at 4d + 2 and write at 4d + 3, a cut of the stream
before them reads at 4d and writes at 4d + 1. Knows nothing of metrics.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.engine.dataset.tape import Tape
from whence.model.sites import Hook
from whence.model.sublayers import Sublayer

Inner = Literal["q", "k", "v", "qkv", "gate", "up", "z", "hidden"]
Depth = Literal["write", "out", "normed"]
FIRST = -1  # when token and position embeddings are written


@dataclass(frozen=True, eq=False)
class StreamRead:
    """The stream at a time, through a norm."""

    time: int
    norm: nn.Module | None = None
    entered: float = 1.0  # what is read is this times the norm's output


@dataclass(frozen=True, eq=False)
class StreamWrite:
    """Into the stream, from some depth of a sublayer's way out; None: at once."""

    time: int
    sublayer: Sublayer | None = None
    depth: Depth = "normed"
    cuts: bool = False  # what is written is the whole stream
    factor: float = 1.0  # what is written at once arrives times this


@dataclass(frozen=True)
class Inside:
    """Within a sublayer: the output of one of its first maps, or what its last map is given."""

    sublayer: Sublayer
    end: Inner


@dataclass(frozen=True)
class Elsewhere:
    """A place that only vector-Jacobian products reach; `time` is when the stream it depends on was read."""

    time: int
    sublayer: Sublayer


Where: TypeAlias = StreamRead | StreamWrite | Inside | Elsewhere


@dataclass(frozen=True, eq=False)
class Reading:
    """Units of one site as targets."""

    site: str
    ids: Int[Tensor, " unit"]
    size: int
    where: StreamRead | Inside | Elsewhere
    V: Float[Tensor, "unit into"] | None  # None: nothing but vector-Jacobian products will do
    constant: Float[Tensor, " unit"] | None = None
    signed_only: bool = False  # coordinates, whose squares mean nothing


@dataclass(frozen=True, eq=False)
class Writing:
    """Units or vectors of one site as sources.

    `units`: activation times row of U. `vector`: one vector a token. `parts`: several vectors a token, one a unit
    (heads). `tokens`: one vector a token, told apart by the token's id.
    """

    site: str
    ids: Int[Tensor, " unit"]
    size: int
    where: StreamWrite | Inside
    kind: Literal["units", "vector", "parts", "tokens"]
    U: Float[Tensor, "unit out"] | None = None


@runtime_checkable
class Site(Protocol):
    """What every site is."""

    @property
    def readings(self) -> tuple[Reading, ...]: ...

    @property
    def writings(self) -> tuple[Writing, ...]: ...

    @property
    def closes(self) -> Sublayer | None:
        """The sublayer whose whole write to the stream this site stands for."""
        ...

    def hooks(self, tape: Tape) -> list[Hook]:
        """What tells a tape of a pass."""
        ...
