"""Which rows a ledger has: decided from the model's layout before anything runs, so that scores are written in place.

Each writer gets one run of rows for its units (heads, neurons, experts ... or the whole write) and, where it has one,
a row for its bias. Rows stand in the order of writing: embeddings, writers, constants.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from whence.engine.granularity import Granularity
from whence.errors import UnsupportedModelError
from whence.model.experts import expert_sizes, has_bias
from whence.model.layout import Writer
from whence.model.linear import is_plain, may_have_constant, weight_of
from whence.results.keys import Node
from whence.results.runs import Run


@dataclass(frozen=True)
class Slot:
    """A run of rows, and where it starts."""

    run: Run
    start: int

    @property
    def rows(self) -> slice:
        """Of the ledger's last axis."""
        return slice(self.start, self.start + len(self.run))


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a ledger."""

    slots: dict[str, Slot]  # by name: a writer's key, that key + ".bias", "embed", ...
    size: int

    @property
    def runs(self) -> tuple[Run, ...]:
        """In row order."""
        return tuple(slot.run for slot in self.slots.values())

    def rows_before(self, names: Collection[str]) -> int:
        """How many rows stand before the first of these."""
        return min((slot.start for name, slot in self.slots.items() if name in names), default=self.size)


def make_table(runs: dict[str, Run]) -> Table:
    """Rows laid out in the order given."""
    slots: dict[str, Slot] = {}
    start = 0
    for name, run in runs.items():
        slots[name] = Slot(run, start)
        start += len(run)
    return Table(slots, start)


def writer_runs(
    writer: Writer, by: frozenset[Granularity], keys: int, query: int | None, *, folded: bool = False
) -> dict[str, Run]:
    """The rows of one writer.

    Args:
        writer: the writer.
        by: how finely it is told apart; a writer without such units stays whole.
        keys: number of source tokens.
        query: the position that reads them, where it is one for the whole ledger: part of such a row's key.
        folded: value biases are counted as bias, so that attention has such a row in any case.
    """
    units: Run | None = None
    if writer.name == "attn" and "head" in by:
        units = Run(Node("attn.head", index=0, layer=writer.layer), range(_heads(writer)))
    elif writer.name == "attn" and "source_token" in by:
        head = Node("attn.head", index=0, layer=writer.layer, position=query)
        units = Run(head, range(_heads(writer) * keys), inner=keys, axis="source")
    elif writer.name == "mlp" and "neuron" in by:
        units = Run(Node("mlp.neuron", index=0, layer=writer.layer), range(input_width(writer.write)))
    elif writer.name == "moe" and by & {"expert", "neuron"}:
        experts, width = expert_sizes(writer.write)
        if "expert" in by:
            units = Run(Node("moe.expert", index=0, layer=writer.layer), range(experts))
        else:
            units = Run(Node("moe.neuron", index=(0, 0), layer=writer.layer), range(experts * width), inner=width)
    elif writer.name == "ssm" and "channel" in by:
        units = Run(Node("ssm.channel", index=0, layer=writer.layer), range(input_width(writer.write)))
    elif writer.name == "ssm" and "head" in by and writer.heads:
        units = Run(Node("ssm.head", index=0, layer=writer.layer), range(writer.heads))
    runs = {writer.key: units or Run(Node(writer.name, layer=writer.layer))}
    if _has_constant(writer) or (folded and writer.name == "attn"):
        runs[f"{writer.key}.bias"] = Run(Node(f"{writer.name}.bias", layer=writer.layer))
    return runs


def _heads(writer: Writer) -> int:
    if not writer.heads or input_width(writer.write) % writer.heads:
        raise NotImplementedError(
            f"{writer.key} writes {input_width(writer.write)} channels, which do not split into {writer.heads} heads; "
            "ask for by='component'"
        )
    return writer.heads


def _has_constant(writer: Writer) -> bool:
    """Whether the write holds a constant; a wrapped map may, so it gets the row."""
    if writer.post_norm is not None and any(name == "bias" for name, _ in writer.post_norm.named_parameters()):
        return True
    if writer.name == "moe":
        return has_bias(writer.write)
    return may_have_constant(writer.write)


def input_width(module: nn.Module) -> int:
    """Number of input channels of a linear map.

    Raises:
        UnsupportedModelError: a wrapped map that does not say.
    """
    if is_plain(module):
        return weight_of(module).shape[1]
    width = getattr(module, "in_features", None) or getattr(module, "nx", None)  # GPT-2's Conv1D, offloaded
    if not isinstance(width, int):
        raise UnsupportedModelError(
            f"{type(module).__name__} does not say how many inputs it has; give it `in_features`"
        )
    return width
