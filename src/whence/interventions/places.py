"""Nodes of the model itself as places in its forward pass: where each value is read and exchanged.

    embed, pos_embed                         the stream before the first block
    attn, mlp, moe, moe.shared, ssm          what the sublayer adds to the stream (behind a post-norm)
    resid_pre ... mlp_out                    that vector
    attn.head, mlp.neuron, ssm.channel/head  channels of what the sublayer's last map is given
    attn or attn.head with ~source           pattern[q, k] * value[k], a part of those channels
    moe.expert, moe.neuron                   an expert's weighted write; one of its neurons

Cost: one or two hooks a node. Nodes of dictionaries are in features.py.
"""

from dataclasses import dataclass
from types import EllipsisType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from whence.interventions.lines import lines_at, mask_of
from whence.interventions.seat import Pass, Seat
from whence.model.attention import expand_groups
from whence.model.layout import Layout, Writer
from whence.model.linear import width_into
from whence.model.sites import (
    Hook,
    Site,
    Spot,
    added,
    by_example,
    embedding_site,
    position_site,
    site_of,
    writer_of,
)
from whence.results.keys import Node
from whence.results.names import SITES


@runtime_checkable
class Place(Protocol):
    """Where a node's value is read and exchanged."""

    def hooks(self, seat: Seat) -> tuple[list[Hook], list[Hook]]:
        """Hooks that only look, which go before all others of their spot, and hooks that change."""
        ...


@dataclass(frozen=True, eq=False)
class SitePlace:
    """A vector at a site, or some channels of it; one channel is a number."""

    site: Site
    channels: slice | int | EllipsisType = ...

    def hooks(self, seat: Seat) -> tuple[list[Hook], list[Hook]]:
        """One hook that reads and changes."""
        seen: dict[str, Tensor] = {}

        def change(tensor: Tensor) -> Tensor | None:
            mask = mask_of(seat, tensor)
            if seat.idle or not mask.any():
                return None
            lines = lines_at(self.site, tensor, mask, seen)
            new = seat.swap(lines[:, self.channels], mask)
            if new is None:
                return None
            step = torch.zeros_like(lines)
            step[:, self.channels] = new.to(lines) - lines[:, self.channels]
            return self._exact(tensor, mask, new) if self.site.read is None else self.site.stepped(tensor, mask, step)

        return self.site.captures(seen), [self.site.spot.hook(change)]

    def _exact(self, tensor: Tensor, mask: Tensor, new: Tensor) -> Tensor:
        view = by_example(tensor, mask.shape[1]).clone()
        lines = view[mask]
        lines[:, self.channels] = new.to(lines)
        view[mask] = lines
        return view.reshape(tensor.shape)


@dataclass(frozen=True, eq=False)
class PairPlace:
    """What attention reads at one token: pattern[q, k] value[k] of one head, or of all side by side."""

    writer: Writer
    head: int | None
    source: int

    def hooks(self, seat: Seat) -> tuple[list[Hook], list[Hook]]:
        """One hook in front of the output map, for which attention must be tapped."""

        def change(z: Tensor) -> Tensor | None:
            mask = mask_of(seat, z)
            if seat.idle or not mask.any():
                return None
            part, channels = self._part(seat.run, z)
            new = seat.swap(part[mask], mask)
            if new is None:
                return None
            z = z.clone()
            lines = z[mask]
            lines[:, channels] += (new - part[mask]).to(lines)
            z[mask] = lines
            return z

        return [], [Spot(self.writer.write, before=True).hook(change)]

    def _part(self, run: Pass, z: Tensor) -> tuple[Tensor, slice]:
        """[example, query, channel] and which channels of z they are."""
        attention = run.attention[self.writer.module]
        pattern = attention.pattern.expand(z.shape[0], *attention.pattern.shape[1:])
        value = expand_groups(attention.value, pattern.shape[1])
        key = self.source - (run.start + z.shape[1] - value.shape[2])  # a cache may have let go of the first keys
        if key >= value.shape[2] or key < 0:
            return z.new_zeros(z.shape), slice(None)
        part = pattern[..., key].transpose(1, 2)[..., None] * value[:, None, :, key]
        width = part.shape[-1]
        if self.head is None:
            return part.flatten(2), slice(None)
        return part[:, :, self.head], slice(self.head * width, (self.head + 1) * width)


def needs_attention(node: Node) -> bool:
    """Whether attention must be tapped for this node."""
    return node.source is not None


def native_place(layout: Layout, node: Node) -> Place:
    """Where a node of the model itself lies.

    Raises:
        ValueError: a layer, head or unit that does not exist, or a node that cannot be changed; says what can be.
    """
    if node.end is not None:
        raise ValueError(f"{node}: an end of a unit (.{node.end}) cannot be changed; name the unit itself")
    if node.name == "embed":
        return SitePlace(embedding_site(layout))
    if node.name == "pos_embed":
        return SitePlace(position_site(layout))
    layer = -1 if node.layer is None else node.layer
    if node.name in SITES:
        return SitePlace(site_of(layout, node.name, layer))
    if node.name in ("attn", "mlp", "moe", "moe.shared", "ssm") and node.source is None:
        return SitePlace(Site(added(writer_of(layout, layer, node.name))))
    if node.name in ("attn", "attn.head"):
        return _head(layout, node, layer)
    if node.name in ("mlp.neuron", "ssm.channel", "ssm.head"):
        return _unit(layout, node, layer)
    if node.name in ("moe.expert", "moe.neuron"):
        from whence.interventions.experts import expert_place

        return expert_place(layout, node, layer)
    raise ValueError(
        f"{node} is not something that can be changed. Interventions take embeddings, sublayers (2.mlp), heads, "
        "neurons, experts, sites (2.resid_post) and, with their dictionary, features and errors"
    )


def _head(layout: Layout, node: Node, layer: int) -> Place:
    writer = writer_of(layout, layer, "attn")
    head = node.index if isinstance(node.index, int) else None
    if head is not None and head >= (writer.heads or 0):
        raise ValueError(f"{node}: the layer has heads 0 to {(writer.heads or 0) - 1}")
    if node.source is not None:
        return PairPlace(writer, head, node.source)
    assert head is not None
    width = width_into(writer.write, writer.key) // (writer.heads or 1)
    return SitePlace(Site(Spot(writer.write, before=True)), slice(head * width, (head + 1) * width))


def _unit(layout: Layout, node: Node, layer: int) -> Place:
    assert isinstance(node.index, int)
    writer = writer_of(layout, layer, node.name.partition(".")[0])
    units = width_into(writer.write, writer.key)
    width = units // (writer.heads or units) if node.name == "ssm.head" else 1
    if node.index >= units // width:
        raise ValueError(f"{node}: the layer has units 0 to {units // width - 1}")
    channels = node.index if width == 1 else slice(node.index * width, (node.index + 1) * width)
    return SitePlace(Site(Spot(writer.write, before=True)), channels)
