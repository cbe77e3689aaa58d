"""What questions to dataset attributions give back: a ranking, a block, a matrix of sites, the units of a site.

Plain data with the units they are about. Cost: none. It knows nothing of stores.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_keys import node_of
from whence.results.dataset_ranking import Entry
from whence.results.keys import Node

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True, eq=False, repr=False)
class Ranking:
    """The strongest units on one side of a unit, in order; a sequence of entries.

    Args:
        of: The unit asked about.
        side: What is ranked: its sources, "source", or its targets, "target".
        metric: Which number.
        normalise: What it is divided by.
        sign: Which values.
        offset: How many units were passed over.
        ranked: How many units have a rank: non-zero values of this sign.
        entries: The units.
    """

    of: Node
    side: str
    metric: str
    normalise: str
    sign: str
    offset: int
    ranked: int
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, place: int) -> Entry:
        return self.entries[place]

    @property
    def keys(self) -> list[Node]:
        """The units, in order."""
        return [entry.key for entry in self.entries]

    def table(self) -> "rich.table.Table":
        """A table for a terminal: key, token, value, standard error, bar."""
        from whence.results.dataset_render import ranking_table

        return ranking_table(self)

    def __repr__(self) -> str:
        """One line: what was ranked, and the first."""
        first = f": {self[0].key} {self[0].value:+.4g}" if len(self) else ""
        places = (
            f"{self.offset + 1}-{self.offset + len(self)} of {self.ranked}" if len(self) else f"none of {self.ranked}"
        )
        return f"Ranking({self.side}s of {self.of}, {self.metric} by {self.normalise}, {places}{first})"

    def _repr_html_(self) -> str:
        from whence.results.dataset_render import ranking_html

        return ranking_html(self)


@dataclass(frozen=True, eq=False, repr=False)
class Block:
    """All attributions from one site to another.

    Args:
        target_site: Of the rows.
        source_site: Of the columns.
        target_ids: Which unit each row is.
        source_ids: Which unit each column is.
        values: The attributions.
        standard_errors: How sure they are; None where it is not known.
    """

    target_site: str
    source_site: str
    target_ids: Int[Tensor, " row"]
    source_ids: Int[Tensor, " column"]
    values: Float[Tensor, "row column"]
    standard_errors: Float[Tensor, "row column"] | None

    @property
    def targets(self) -> list[Node]:
        """The node of each row. ValueError: the rows are the stream's coordinates."""
        return [node_of(self.target_site, id) for id in self.target_ids.tolist()]

    @property
    def sources(self) -> list[Node]:
        """The node of each column."""
        return [node_of(self.source_site, id) for id in self.source_ids.tolist()]

    def __repr__(self) -> str:
        """One line: from where to where, and the size."""
        shape = " × ".join(map(str, self.values.shape))
        return f"Block({self.source_site} -> {self.target_site}, {shape})"


@dataclass(frozen=True, eq=False, repr=False)
class SiteMatrix:
    """One number a pair of sites.

    Args:
        targets: Sites of the rows.
        sources: Sites of the columns.
        values: The numbers; nan where nothing leads from one to the other.
        metric: What is summed up.
        normalise: What it is divided by before.
        how: "sum_abs", "rms" or "sum" over the pairs of units.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    values: Float[Tensor, "target source"]
    metric: str
    normalise: str
    how: str

    def __getitem__(self, pair: tuple[str, str]) -> float:
        """The number of a pair (target site, source site)."""
        return float(self.values[self.targets.index(pair[0]), self.sources.index(pair[1])])

    def __repr__(self) -> str:
        """One line: its size and what it holds."""
        return f"SiteMatrix({len(self.targets)} targets × {len(self.sources)} sources, {self.how} of {self.metric})"


@dataclass(frozen=True, eq=False, repr=False)
class Units:
    """The units of a site.

    Args:
        site: Which.
        size: How many it has, stored or not.
        ids: Those stored, ascending.
        as_target: Raw sums over all tokens, by name, nan for those not stored as targets; empty: no target.
        as_source: The same as sources.
        tokens: Id -> what the token says, where units are tokens.
    """

    site: str
    size: int
    ids: Int[Tensor, " unit"]
    as_target: Mapping[str, Float[Tensor, " unit"]]
    as_source: Mapping[str, Float[Tensor, " unit"]]
    tokens: Mapping[int, str]

    @property
    def keys(self) -> list[Node]:
        """The node of each unit. ValueError: the units are the stream's coordinates."""
        return [node_of(self.site, id) for id in self.ids.tolist()]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        """One line: the site and how many units are stored."""
        return f"Units({self.site}: {len(self)} of {self.size} stored)"
