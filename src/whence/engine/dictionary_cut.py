"""An MLP cut by a dictionary: features as sources and readers, what they miss as an error, a linear skip carried on.

    write = sum_f a_f PN(W_dec[f]) + PN(skip(x)) + constants + error          PN: the post-norm at its recorded scale

A cross-layer feature is one node, read at every layer it writes. At a BOS position the MLP's whole output is one
source.
Cost: the encoder over the prompt, and decoder rows of active features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.components.encoder import Active
from whence.components.sets import DictionarySet
from whence.engine.groups import Groups
from whence.engine.maps import NormAt, SkipMap
from whence.engine.readers import DictionaryReader
from whence.engine.recorded import Recorded
from whence.engine.stream import Group, Sources
from whence.model.layout import Writer
from whence.model.trace import Write


@dataclass(frozen=True, eq=False)
class Cut:
    """What stands for one layer's MLP."""

    sources: tuple[Sources, ...]
    skips: tuple[SkipMap, ...]
    constant: Float[Tensor, "pos d_model"]


@dataclass(frozen=True, eq=False)
class DictionaryCut:
    """A dictionary in the place of a model's MLPs, layer by layer from the bottom."""

    recorded: Recorded
    dictionary: DictionarySet
    groups: Groups
    bos: tuple[int, ...]
    bos_is_constant: bool
    active: dict[int, Active] = field(default_factory=dict[int, Active])
    number: dict[int, int] = field(default_factory=dict[int, int])  # group of each layer's features

    @property
    def layers(self) -> frozenset[int]:
        """Layers whose MLP the dictionary stands for: a cross-layer one may write where it does not read."""
        return frozenset(at for layer in self.dictionary.layers for at in self.dictionary.written(layer))

    def layer(self, stage: int, writes: Sequence[Write]) -> Cut:
        """One layer's MLP, cut.

        Args:
            stage: its number.
            writes: the MLP's writes; several where experts and a shared expert write side by side.
        """
        recorded, writer = self.recorded, writes[0].writer
        entry, exit = recorded.entry(writer), recorded.exit(writer)
        if self.dictionary.writes == "mlp_out_normed":
            exit = NormAt(None, torch.full_like(exit.inverse, writer.multiplier), writer.multiplier)
        constant, skips = exit.bias.expand(recorded.length, recorded.model.d_model), list[SkipMap]()
        error = torch.stack([recorded.added(write) for write in writes]).sum(0)
        if writer.layer in self.dictionary.layers:
            read = self.what_is_read(writes[0], entry)
            self.activate(stage, writer.layer, read, entry)
            bias = self.dictionary.decoder_bias(writer.layer).to(recorded.like)
            constant = constant + exit.push(bias.expand_as(constant))
            matrix = self.dictionary.skip(writer.layer)
            if matrix is not None:
                matrix = matrix.to(recorded.like)
                skips = [self.skip(matrix, entry, exit)]
                error = error - exit.push(read @ matrix.T) * self.trusted[:, None]
        constant = constant * self.trusted[:, None]
        sources = [self.features(at, writer.layer, exit) for at in self.active if self.writes_at(at, writer.layer)]
        for features in sources:
            error = error - _sums(features, self.groups.found[features.group], error)
        return self.closed(writer, sources, skips, constant, error - constant)

    def closed(
        self, writer: Writer, sources: list[Sources], skips: list[SkipMap], constant: Tensor, error: Tensor
    ) -> Cut:
        """The cut with its error, which at a BOS position is the whole write."""
        special: dict[str, Any] = {"whole": writer.name, "whole_at": self.bos}
        if self.bos_is_constant:
            at_bos = ~self.trusted[:, None] * error
            constant, error, special = constant + at_bos, error - at_bos, {}
        if not bool(error.isfinite().all()):
            raise ValueError(
                f"layer {writer.layer}: what the dictionary writes, or the model's own MLP, is not finite at position "
                f"{int((~error.isfinite().all(-1)).nonzero()[0])}; look for NaN in its tensors"
            )
        errors = self.groups.add(self.groups.one_each("mlp.error", writer.layer, **special), error)
        return Cut((*sources, errors), tuple(skips), constant)

    # ------------------------------------------------------------ reading
    @property
    def trusted(self) -> Bool[Tensor, " pos"]:
        """Positions where the dictionary stands."""
        trusted = torch.ones(self.recorded.length, dtype=torch.bool, device=self.recorded.like.device)
        trusted[list(self.bos)] = False
        return trusted

    def reading(self, entry: NormAt) -> NormAt:
        """What stands between the stream and the dictionary."""
        return NormAt(None, torch.ones_like(entry.inverse)) if self.dictionary.reads == "resid_mid" else entry

    def what_is_read(self, write: Write, entry: NormAt) -> Float[Tensor, "pos d_model"]:
        """The dictionary's input, as the model computed it."""
        assert write.sublayer is not None
        if self.dictionary.reads == "mlp_in" or write.writer.norm is None:
            return self.recorded.to(write.sublayer.input)
        x = self.recorded.to(self.recorded.trace.around[write.writer.norm].input)
        if self.dictionary.reads == "resid_mid" or entry.norm is None:
            return x
        return entry.norm.centre(x) * entry.inverse[:, None]

    def activate(self, stage: int, layer: int, read: Float[Tensor, "pos d_model"], entry: NormAt) -> None:
        """Note which features of a layer are active, and how they read."""
        found = self.dictionary.active(layer, read)
        kept = self.trusted[found.position]
        active = Active(found.position[kept], found.feature[kept], found.activation[kept], found.pre_activation[kept])
        self.active[layer], self.number[layer] = active, len(self.groups.found)
        gain = self.dictionary.reads != "mlp_in_normalized"
        norm, size = self.reading(entry), read.norm(dim=-1)
        reader = DictionaryReader(stage, norm, gain, size, self.dictionary, layer, active)
        self.groups.readers[self.number[layer]] = reader
        starts = torch.searchsorted(active.position.contiguous().cpu(), torch.arange(self.recorded.length + 1)).tolist()
        self.groups.found.append(Group("mlp.feature", layer, active.feature.cpu(), starts))

    # ------------------------------------------------------------ writing
    def writes_at(self, layer: int, at: int) -> bool:
        """Whether features of a layer write at another."""
        return at in self.dictionary.written(layer)

    def features(self, layer: int, at: int, exit: NormAt) -> Sources:
        """What the active features of one layer write at another."""
        active = self.active[layer]
        unique, row = active.feature.unique(return_inverse=True)
        rows = self.dictionary.decoder(layer, unique, at).to(self.recorded.like)
        scale = active.activation.to(self.recorded.like) * exit.inverse[active.position]
        return Sources(self.number[layer], exit.gained(rows), row, scale)

    def skip(self, matrix: Float[Tensor, "d_model d_model"], entry: NormAt, exit: NormAt) -> SkipMap:
        """The dictionary's linear skip, from the stream to the stream."""
        read = self.reading(entry)
        bias = matrix.new_zeros(len(matrix))
        if self.dictionary.reads == "mlp_in":
            bias, matrix = matrix @ read.bias.expand(len(matrix)), read.folded(matrix)
        elif read.norm is not None:
            matrix = read.norm.centre(matrix)
        constant = exit.push(bias.expand(self.recorded.length, -1)) * self.trusted[:, None]
        return SkipMap(exit.gained(matrix.T).T, exit.inverse * read.inverse * self.trusted, constant)


def _sums(sources: Sources, group: Group, like: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
    """The sum of the sources of each position."""
    total = torch.zeros_like(like)
    for position, (a, b) in enumerate(zip(group.starts, group.starts[1:], strict=False)):
        if a < b:
            total[position] = sources.at(a, b).sum(0)
    return total
