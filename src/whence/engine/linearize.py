"""Run a prompt once and turn the run into its frozen linear model: stages, sources, readers.

Every MLP is cut: a dictionary's features and what it misses, or its neurons, or its output as a whole become sources,
and so do the outputs of experts and of recurrent sublayers. Attention and linear skips carry on. At a BOS position no
dictionary is trusted: an MLP's output there is one source a layer.

    MLP write = sum_f a_f PN(W_dec[f]) + PN(skip(x)) + error + constants        PN: the post-norm at its recorded scale

Cost: one forward pass with eager attention, and each dictionary's encoder over the prompt. Memory: patterns, the inputs
and outputs of MLPs, and decoder rows of active features alone. Knows nothing of targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.engine.attention_map import attention_map
from whence.engine.dictionary_cut import DictionaryCut
from whence.engine.expert_sources import experts_apart, is_apart
from whence.engine.groups import Groups
from whence.engine.neuron_reader import neuron_reader
from whence.engine.readers import Reader
from whence.engine.recorded import Recorded
from whence.engine.stream import FrozenStream, Group, Sources, Stage, constants_below
from whence.model.batch import Batch
from whence.model.freeze import refuse_unless_frozen
from whence.model.linear import constant_of, matrix_of
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Trace, Wanted, Write

PAIRS_BYTES = 1 << 27  # above this, the lowest attention is traversed like any other


@dataclass(eq=False)
class Linearized:
    """One prompt's frozen model, and what its features were."""

    stream: FrozenStream
    readers: dict[int, Reader]  # by group
    bos: tuple[int, ...]
    trace: Trace | None  # until `forget_run`
    run_bytes: int = 0

    @property
    def run(self) -> Trace:
        """What the forward pass left behind."""
        assert self.trace is not None
        return self.trace

    def forget_run(self) -> None:
        """Let go of what rows do not need."""
        self.trace = None

    def features(self) -> tuple[Int[Tensor, "feature 3"], Float[Tensor, " feature"]]:
        """(layer, position, index) and activation of every node that could have a row, by number."""
        rows, values = [torch.zeros(0, 3, dtype=torch.long)], [self.stream.final.inverse.new_zeros(0).cpu()]
        for number in sorted(self.readers):
            group = self.stream.groups[number]
            layer = torch.full((len(group),), group.layer if group.layer is not None else -1)
            rows.append(torch.stack([layer, group.position(), group.index], 1))
            every = torch.arange(len(group), device=self.stream.final.inverse.device)
            values.append(self.readers[number].activation(every).cpu())
        return torch.cat(rows), torch.cat(values)

    def bytes(self) -> int:
        """Memory of the linear model, and of the run while it was made."""
        return bytes_in([self.stream, list(self.readers.values())]) + self.run_bytes


def linearize(
    model: Model,
    batch: Batch,
    dictionary: DictionarySet | Neurons,
    *,
    position: int,
    bos: tuple[int, ...],
    bos_is_constant: bool = False,
) -> Linearized:
    """The frozen linear model of one prompt.

    Args:
        model: the model.
        batch: one prompt.
        dictionary: what cuts the MLPs.
        position: where logits are explained; nothing after it is kept.
        bos: positions where no dictionary is trusted.
        bos_is_constant: whether MLP outputs there count as bias rather than as sources.

    Raises:
        UnsupportedModelError: attention patterns of this family cannot be held, or its values not be followed.
        ValueError: a dictionary that does not fit the model.
    """
    refuse_unless_frozen(model.layout)
    bos = tuple(p for p in bos if p <= position)
    if isinstance(dictionary, DictionarySet):
        dictionary.check_fits(model.d_model, model.n_layers)
    trace = _record(model, batch, dictionary, position)
    recorded, groups = Recorded(model, trace, position + 1), Groups(position + 1)
    cut = None
    if isinstance(dictionary, DictionarySet):
        cut = DictionaryCut(recorded, dictionary, groups, bos, bos_is_constant)
    stream = _Builder(recorded, dictionary, cut, groups).build()
    readers = {groups.places[number]: reader for number, reader in groups.readers.items()}
    return Linearized(stream, readers, bos, trace, bytes_in(trace))


def _record(model: Model, batch: Batch, dictionary: DictionarySet | Neurons, position: int) -> Trace:
    around: frozenset[torch.nn.Module] = frozenset()
    if isinstance(dictionary, DictionarySet) and dictionary.reads != "mlp_in":
        norms = (w.norm for w in model.layout.writers if w.name in ("mlp", "moe") and w.layer in dictionary.layers)
        around = frozenset(norm for norm in norms if norm is not None)
    rows = torch.arange(position + 1, device=batch.ids.device)[None]
    wanted = Wanted(attention=bool(model.layout.attention), sublayers=True, scales=True, around=around)
    return record(model.layout, batch, rows, keep=rows[:, -1:], wanted=wanted)


@dataclass(eq=False)
class _Builder:
    recorded: Recorded
    units: DictionarySet | Neurons
    cut: DictionaryCut | None
    groups: Groups

    def build(self) -> FrozenStream:
        trace, model = self.recorded.trace, self.recorded.model
        writes = {write.writer: write for write in trace.writes}
        ordered = sorted(model.layout.writers, key=lambda w: (w.layer, w.stage))
        parts = groupby(ordered, key=lambda w: (w.layer, w.stage))
        stages = [self.stage(number, [writes[w] for w in here]) for number, (_, here) in enumerate(parts)]
        bottom = self.bottom()
        stream = FrozenStream(
            stages=tuple(map(self.groups.renumbered, stages)),
            groups=self.groups.placed(),
            bottom=tuple(map(self.groups.moved, bottom)),
            final=self.recorded.norm_at(model.layout.final_norm, trace.final.input, trace.final.output),
            length=self.recorded.length,
            width=model.d_model,
        )
        stream.constants.extend(constants_below(stream, self.recorded.like))
        return with_pairs(stream)

    def stage(self, number: int, writes: Sequence[Write]) -> Stage:
        """Everything that reads the stream at one place."""
        attention = next((attention_map(self.recorded, w) for w in writes if w.writer.name == "attn"), None)
        rest = [write for write in writes if write.writer.name != "attn"]
        mlps = [write for write in rest if write.writer.name != "ssm"]
        if mlps and self.cut is not None and mlps[0].writer.layer in self.cut.layers:
            cut = self.cut.layer(number, mlps)
            others = [self.whole(write) for write in rest if write.writer.name == "ssm"]
            return Stage(attention, cut.skips, (*cut.sources, *others), cut.constant)
        sources, constants = list[Sources](), list[Tensor]()
        for write in rest:
            if isinstance(self.units, Neurons) and write.writer.name == "mlp":
                sources.append(self.neurons(number, write, self.units, constants))
            elif write.writer.name == "moe" and is_apart(write):
                exit = self.recorded.exit(write.writer)
                sources.append(self.groups.add(*experts_apart(write, exit, self.recorded.length)))
            else:
                sources.append(self.whole(write))
        return Stage(attention, (), tuple(sources), torch.stack(constants).sum(0) if constants else None)

    def whole(self, write: Write) -> Sources:
        """A sublayer's output as one source a position."""
        return self.groups.add(self.groups.one_each(write.writer.name, write.writer.layer), self.recorded.added(write))

    def neurons(self, number: int, write: Write, units: Neurons, constants: list[Tensor]) -> Sources:
        """An MLP as its neurons."""
        assert isinstance(write.input, Tensor)
        recorded, writer = self.recorded, write.writer
        exit, like, length = recorded.exit(writer), recorded.like, recorded.length
        activation = recorded.to(write.input)
        width = activation.shape[1]
        rows = matrix_of(writer.write, recorded.model.d_model, width, like).T
        bias = constant_of(writer.write, width, like)
        constant = exit.bias.expand(length, recorded.model.d_model)
        constants.append(constant if bias is None else constant + exit.push(bias.expand(length, -1)))
        self.groups.readers[len(self.groups.found)] = neuron_reader(
            number, recorded.entry(writer), write, units.gate, like, recorded.model.layout.lock
        )
        index = torch.arange(width).repeat(length)
        group = Group("mlp.neuron", writer.layer, index, list(range(0, length * width + 1, width)))
        scale = (activation * exit.inverse[:, None]).flatten()
        return self.groups.add(group, exit.gained(rows), index.to(like.device), scale)

    def bottom(self) -> list[Sources]:
        """Token embeddings and learned positions."""
        trace, groups = self.recorded.trace, self.groups
        ids = trace.batch.ids[0, : self.recorded.length].cpu()
        embed = Group("embed", None, ids, list(range(self.recorded.length + 1)))
        found = [groups.add(embed, self.recorded.to(trace.embedding))]
        if trace.position is not None:
            found.append(groups.add(groups.one_each("pos_embed", None), self.recorded.to(trace.position)))
        return found


def with_pairs(stream: FrozenStream) -> FrozenStream:
    """The stream with what every token sends every position through the lowest attention, where that is small."""
    lowest = stream.lowest_attention()
    cells = len(stream.bottom) * stream.length * (stream.length + 1) // 2 * stream.width
    if lowest is None or cells * 4 > PAIRS_BYTES:
        return stream
    attention = stream.stages[lowest].attention
    assert attention is not None
    pairs = tuple(attention.pairs(sources.at(0, stream.length)) for sources in stream.bottom)
    return replace(stream, pairs=pairs)


def bytes_in(value: Any) -> int:
    """Memory of the tensors in plain data, storages counted once."""
    seen: dict[int, int] = {}
    waiting: list[Any] = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, Tensor):
            storage = here.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        elif isinstance(here, dict):
            waiting.extend(here.values())
        elif isinstance(here, list | tuple):
            waiting.extend(here)
        elif is_dataclass(here) and not isinstance(here, DictionarySet | type):
            waiting.extend(vars(here).values())
    return sum(seen.values())
