"""A store ready to be asked: its axes, where a key stands in them, and what tokens say.

A key is found by its site and, within the site, by bisection. Cost: none; nothing is read from blocks. Knows nothing of
metrics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_keys import site_of
from whence.results.dataset_memory import Blocks
from whence.results.keys import Node

Side = Literal["source", "target"]
Unembedding = Callable[[Int[Tensor, " token"]], Float[Tensor, "token d_model"]]  # rows as the model scales logits


@dataclass(frozen=True, eq=False, repr=False)
class Opened:
    """Blocks and what is needed to read them.

    Args:
        store: The blocks.
        unembedding: Token ids -> their unembedding rows, times the model's scale of logits; None: not at hand.
        vocabulary: How many tokens have such a row.
    """

    store: Blocks
    unembedding: Unembedding | None = None
    vocabulary: int = 0

    @property
    def header(self) -> Header:
        """Everything but the blocks."""
        return self.store.header

    @cached_property
    def strings(self) -> Mapping[str, str]:
        """Token id, as text -> what the token says."""
        found: Any = self.header.settings.get("token_strings") or self.header.provenance.get("token_strings") or {}
        return found

    def axes(self, side: Side) -> Mapping[str, Axis]:
        """The sites of one side."""
        return self.header.sources if side == "source" else self.header.targets

    def token(self, node: Node) -> str | None:
        """What the token of an embedding or an output says, if that is known."""
        return self.strings.get(str(node.index)) if node.name in ("embed", "output") else None

    def line(self, node: Node, side: Side) -> tuple[str, int]:
        """The site of a unit and its line there.

        Args:
            node: Which.
            side: Among the sources or the targets.

        Raises:
            KeyError: No such site, beyond its size, or not stored. ValueError: A node that no site has.
        """
        site, id = site_of(node)
        axes = self.axes(side)
        if site not in axes:
            near = get_close_matches(site, axes, n=3) or [*axes][:8]
            raise KeyError(f"{node}: {site!r} is no {side} here; among them are {', '.join(near)}.")
        axis = axes[site]
        place = int(torch.searchsorted(axis.ids, id))
        if place == len(axis.ids) or int(axis.ids[place]) != id:
            raise KeyError(_missing(node, id, axis, side))
        return site, place

    def sites(self, side: Side, asked: Any) -> list[str]:
        """The sites asked for, or all.

        Raises:
            ValueError: One that is not there.
        """
        axes = self.axes(side)
        unknown = [site for site in asked or () if site not in axes]
        if isinstance(asked, str) or unknown:
            raise ValueError(f"sites={asked!r}: give a list of {side} sites, which are {', '.join(axes)}.")
        return [*axes] if asked is None else [site for site in axes if site in asked]


def _missing(node: Node, id: int, axis: Axis, side: Side) -> str:
    """Why a unit has no line."""
    if id >= axis.size:
        return f"{node} does not exist: {axis.site} has {axis.size} units, from 0 to {axis.size - 1}."
    if axis.site == "embed":
        return f"{node} is not stored: the token does not occur in the data."
    if axis.site == "output":
        return f"{node} is not stored: it is none of the tokens named in output_tokens= when the data was counted."
    return f"{node} is dead: it is not alive in its components (or never fired), so it is not stored as a {side}."
