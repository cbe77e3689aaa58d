"""What a bootstrap found: for each node and edge an interval, and how alike the sets of them are.

Cost: nothing beyond the numbers. It knows nothing of how they were drawn.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float64, Int
from torch import Tensor

from whence.results.keys import Edge, Node
from whence.results.nodes import NodeTable
from whence.results.sheet import number_format

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True, eq=False)
class Spread:
    """Numbers over resamples.

    Args:
        mean: Over all examples, once each.
        low: Lower end of the interval.
        high: Upper end.
        kept: Share of the resamples in which the size exceeds the threshold.
        jaccard: For each resample, how alike its set of kept ones is to that of all examples.
    """

    mean: Float64[Tensor, " number"]
    low: Float64[Tensor, " number"]
    high: Float64[Tensor, " number"]
    kept: Float64[Tensor, " number"]
    jaccard: Float64[Tensor, " resample"]

    def select(self, index: Int[Tensor, " kept"]) -> "Spread":
        """Some of the numbers; the sets are still those of all.

        Args:
            index: Which.
        """
        return Spread(self.mean[index], self.low[index], self.high[index], self.kept[index], self.jaccard)

    def strongest(self, k: int) -> list[int]:
        """Which numbers are the k largest in size, the largest first.

        Args:
            k: How many.
        """
        return self.mean.abs().argsort(descending=True, stable=True)[:k].tolist()

    def of(self, number: int) -> tuple[float, float, float, float]:
        """Mean, lower and upper end of the interval, and share of the resamples in which it is kept.

        Args:
            number: Which.
        """
        columns = (self.mean, self.low, self.high, self.kept)
        mean, low, high, kept = (float(column[number]) for column in columns)
        return mean, low, high, kept

    def likeness(self, level: float) -> tuple[float, float, float]:
        """The mean Jaccard, and the ends of its interval.

        Args:
            level: Share of the resamples inside the interval.
        """
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = self.jaccard.quantile(self.jaccard.new_tensor(ends)).tolist()
        return float(self.jaccard.mean()), low, high


@dataclass(frozen=True, eq=False, repr=False)
class Stability:
    """How much of a circuit stays over resampled examples.

    Args:
        nodes: The circuit's nodes, without the metric.
        node: Their effects; `node.jaccard` compares the sets of all nodes with an effect.
        target: For each pair of nodes, the one that the edge leads to, by its number in the circuit.
        source: For each pair, the one that it leads from.
        edge: The edges' weights; `edge.jaccard` compares sets of pairs.
        level: Share of the resamples inside the intervals.
        thresholds: Those of nodes and edges.
        top: How many nodes are kept, the strongest; None where all above the threshold are.

    Example:
        >>> circuit.stability().node_jaccard  # doctest: +SKIP
        (0.81, 0.69, 0.92)
    """

    nodes: NodeTable
    node: Spread
    target: Int[Tensor, " edge"]
    source: Int[Tensor, " edge"]
    edge: Spread
    level: float
    thresholds: dict[str, float]
    top: int | None

    @property
    def node_jaccard(self) -> tuple[float, float, float]:
        """Likeness of the sets of nodes: mean, lower and upper end."""
        return self.node.likeness(self.level)

    @property
    def edge_jaccard(self) -> tuple[float, float, float]:
        """Likeness of the sets of edges: mean, lower and upper end."""
        return self.edge.likeness(self.level)

    def ends(self, edge: int) -> Edge:
        """The ends of a pair of nodes.

        Args:
            edge: Its number.

        Example:
            >>> str(found.ends(0))  # doctest: +SKIP
            '2.resid_post.feature:7 -> metric'
        """
        source, target = int(self.source[edge]), int(self.target[edge])
        return Edge(self.nodes[source], self.nodes[target] if target < len(self.nodes) else Node("metric"))

    def table(self, k: int = 15) -> "rich.table.Table":
        """The nodes with the largest effects and the strongest edges, their intervals, and how alike the sets are.

        Args:
            k: How many nodes, and how many edges.

        Example:
            >>> rich.print(circuit.stability().table(5))  # doctest: +SKIP
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        out = Table(title=Text("Over resampled examples", "bold"), caption=Text(str(self), "dim"))
        out.box, out.pad_edge, out.title_justify, out.caption_justify = box.SIMPLE_HEAD, False, "left", "left"
        out.add_column("node, edge", no_wrap=True)
        for name in ("effect", f"{self.level:.0%} from", "to", "kept in"):
            out.add_column(name, justify="right", no_wrap=True)
        for spread, key in ((self.node, self.nodes.__getitem__), (self.edge, self.ends)):
            show = number_format(float(spread.mean.abs().max()) if len(spread.mean) else 0.0)
            for number in spread.strongest(k):
                *numbers, kept = spread.of(number)
                out.add_row(Text(str(key(number))), *map(show, numbers), f"{kept:.0%}")
            out.add_section()
        return out

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def __str__(self) -> str:
        found = (("nodes", self.node_jaccard), ("edges", self.edge_jaccard))
        said = [f"{what} {_interval(likeness)}" for what, likeness in found]
        return f"Jaccard of {', of '.join(said)}; {len(self.node.jaccard):,} resamples"

    def __repr__(self) -> str:
        return f"Stability({self})"


def _interval(found: tuple[float, float, float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*found)
