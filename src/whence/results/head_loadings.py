"""Edges of a graph split over attention heads: which heads carried what from source to target.

    weights[edge] = direct[edge] + sum_head values[head, edge] + remainder[edge]

Plain data on the CPU; knows no model.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Float64
from torch import Tensor

from whence.results.keys import Edge, Node

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True, eq=False, repr=False)
class HeadLoadings:
    """What each head carries of each edge.

    Args:
        heads: The rows: every head of the model, by layer.
        edges: The columns.
        values: Loadings.
        direct: What reaches the target without any head: at one position, through the stream and linear skips.
        weights: The edges, as an attribution graph has them.
        by: "source" or "target": the end whose nearest head counts for a path through several heads.
        provenance: Where the numbers come from, JSON-able.

    Raises:
        ValueError: Shapes that do not belong together.

    Example:
        >>> edge = Edge(Node.parse("embed:5@0"), Node.parse("1.mlp.feature:3@2"))
        >>> heads, values = (Node("attn.head", 0, 0),), torch.tensor([[0.5]])
        >>> HeadLoadings(heads, (edge,), values, torch.tensor([0.25]), torch.tensor([0.75]), "source")
        HeadLoadings(1 edge × 1 head by source: remainder at most 0.0e+00)
    """

    heads: tuple[Node, ...]
    edges: tuple[Edge, ...]
    values: Float[Tensor, "head edge"]
    direct: Float[Tensor, " edge"]
    weights: Float[Tensor, " edge"]
    by: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, edges = (len(self.heads), len(self.edges)), (len(self.edges),)
        found = (tuple(self.values.shape), tuple(self.direct.shape), tuple(self.weights.shape))
        if found != (shape, edges, edges):
            raise ValueError(
                f"values, direct and weights are {found}; {shape[0]} heads and {shape[1]} edges need {shape}"
            )

    @property
    def remainder(self) -> Float64[Tensor, " edge"]:
        """What no part carries of each edge: rounding."""
        return self.weights.double() - self.direct.double() - self.values.double().sum(0)

    def top(self, edge: int = 0, k: int = 10) -> list[tuple[Node, float]]:
        """The heads that carry most of one edge, the largest |loading| first.

        Args:
            edge: Which edge, by number.
            k: How many heads.

        Example:
            >>> loadings.top(0, 3)[0]  # doctest: +SKIP
            (Node(name='attn.head', layer=2, index=1, ...), 0.81)
        """
        column = self.values[:, edge]
        return [
            (self.heads[row], float(column[row])) for row in column.abs().topk(min(k, len(column))).indices.tolist()
        ]

    def table(self, k: int = 5) -> "rich.table.Table":
        """For each edge its weight, the part no head carries and its strongest heads, for a terminal.

        Args:
            k: How many heads.

        Example:
            >>> rich.print(loadings.table(3))  # doctest: +SKIP
        """
        from rich import box
        from rich.table import Table

        out = Table(title=f"Heads on edges, by {self.by}", box=box.SIMPLE_HEAD, title_justify="left")
        out.add_column("edge")
        out.add_column("weight", justify="right")
        out.add_column("direct", justify="right")
        out.add_column("heads")
        for column, edge in enumerate(self.edges):
            heads = ", ".join(f"{node.layer}.{node.index} {value:+.4f}" for node, value in self.top(column, k))
            out.add_row(str(edge), f"{self.weights[column]:+.4f}", f"{self.direct[column]:+.4f}", heads)
        return out

    def to_json(self) -> dict[str, Any]:
        """Everything in JSON's types.

        Example:
            >>> json.dumps(loadings.to_json())  # doctest: +SKIP
        """
        numbers = {name: getattr(self, name).tolist() for name in ("values", "direct", "weights", "remainder")}
        edges = [{"source": str(edge.source), "target": str(edge.target)} for edge in self.edges]
        heads = [str(head) for head in self.heads]
        return {"heads": heads, "edges": edges, **numbers, "by": self.by, "provenance": self.provenance}

    def __repr__(self) -> str:
        heads, edges = len(self.heads), len(self.edges)
        shape = f"{edges} edge{'' if edges == 1 else 's'} × {heads} head{'' if heads == 1 else 's'}"
        worst = float(self.remainder.abs().max()) if edges else 0.0
        return f"HeadLoadings({shape} by {self.by}: remainder at most {worst:.1e})"

    def __rich__(self) -> "rich.table.Table":
        return self.table()
