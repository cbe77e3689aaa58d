"""One attention score as a sum over pairs: a source that wrote to the query's position, one that wrote to the key's.

    score = sum_ij query_vectors[i] . key_vectors[j] + remainder

Held as two thin matrices of d_head channels (the scaling is in the queries'), because pairs are many: `matrix` makes
all of them, `top` finds the strongest in blocks of rows. Plain data; knows no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import store
from whence.results.keys import Node
from whence.results.nodes import NodeTable

if TYPE_CHECKING:
    import rich.table

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False, repr=False)
class QKAttribution:
    """What made one attention score.

    Args:
        head: The score's key, such as `2.attn.head:1.qk@7~3`.
        query_nodes: What wrote to the query's position; the last is `bias`, the constants.
        key_nodes: What wrote to the key's position, likewise.
        query_vectors: What each adds to the query, rotated as the model rotates it, times the model's scaling.
        key_vectors: What each adds to the key, rotated likewise.
        score: The model's own, before softcap, mask and softmax.
        weight: What the softmax made of it.
        provenance: Where the numbers come from, JSON-able.

    Raises:
        ValueError: Nodes and vectors of unequal number.

    Example:
        >>> nodes = NodeTable.from_nodes([Node("embed", index=5, position=0), Node("bias")])
        >>> q, k = torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> QKAttribution(Node.parse("0.attn.head:0.qk@0~0"), nodes, nodes, q, k, 2.5, 1.0).top(1)[0][2]
        2.0
    """

    head: Node
    query_nodes: NodeTable
    key_nodes: NodeTable
    query_vectors: Float[Tensor, "query_node d_head"]
    key_vectors: Float[Tensor, "key_node d_head"]
    score: float
    weight: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for side in ("query", "key"):
            nodes, vectors = len(getattr(self, f"{side}_nodes")), len(getattr(self, f"{side}_vectors"))
            if nodes != vectors:
                raise ValueError(f"{nodes} {side}_nodes but {vectors} rows of {side}_vectors; give one a node")

    @property
    def matrix(self) -> Float[Tensor, "query_node key_node"]:
        """What every pair adds to the score."""
        return self.query_vectors @ self.key_vectors.T

    @property
    def query_totals(self) -> Float64[Tensor, " query_node"]:
        """What each source of the query adds with the whole key: rows of `matrix`, summed."""
        return self.query_vectors.double() @ self.key_vectors.double().sum(0)

    @property
    def key_totals(self) -> Float64[Tensor, " key_node"]:
        """What each source of the key adds with the whole query: columns of `matrix`, summed."""
        return self.key_vectors.double() @ self.query_vectors.double().sum(0)

    @property
    def remainder(self) -> float:
        """What no pair carries: score − Σ pairs."""
        return self.score - float(self.query_totals.sum())

    @property
    def magnitude(self) -> float:
        """Σ|pairs|, the scale a remainder is judged by."""
        return sum(float(rows.abs().sum(dtype=torch.float64)) for _, rows in self._rows())

    def top(self, k: int = 10) -> list[tuple[Node, Node, float]]:
        """The pairs that add or take away most: (query's source, key's source, value), the largest |value| first.

        Args:
            k: How many.

        Example:
            >>> scores.top(3)[0][2]  # doctest: +SKIP
            1.42
        """
        values, places = self.query_vectors.new_zeros(0), torch.zeros(0, dtype=torch.long)
        width = len(self.key_nodes)
        for start, rows in self._rows():
            flat = rows.flatten()
            best = flat.abs().topk(min(k, len(flat))).indices
            values, places = torch.cat([values, flat[best]]), torch.cat([places, best + start * width])
            kept = values.abs().topk(min(k, len(values))).indices
            values, places = values[kept], places[kept]
        pairs = zip(places.tolist(), values.tolist(), strict=True)
        return [(self.query_nodes[place // width], self.key_nodes[place % width], value) for place, value in pairs]

    def table(self, k: int = 15) -> "rich.table.Table":
        """The strongest pairs, the score and the remainder, for a terminal.

        Args:
            k: How many pairs.

        Example:
            >>> rich.print(scores.table(5))  # doctest: +SKIP
        """
        from rich import box
        from rich.table import Table

        out = Table(title=f"What made the score of {self.head}", box=box.SIMPLE_HEAD, title_justify="left")
        out.add_column("query's source")
        out.add_column("key's source")
        out.add_column("value", justify="right")
        for one, other, value in self.top(k):
            out.add_row(str(one), str(other), f"{value:+.4f}")
        out.add_section()
        out.add_row("the model's score", f"weight {self.weight:.4f}", f"{self.score:+.4f}", style="bold")
        out.add_row("remainder", "", f"{self.remainder:+.1e}", style="bold")
        return out

    def to_json(self, k: int = 100) -> dict[str, Any]:
        """The strongest pairs and the totals in JSON's types. Everything belongs in `save`.

        Args:
            k: How many pairs.

        Example:
            >>> json.dumps(scores.to_json())  # doctest: +SKIP
        """
        numbers = {name: getattr(self, name) for name in ("score", "weight", "remainder", "provenance")}
        pairs = [{"query": str(one), "key": str(other), "value": value} for one, other, value in self.top(k)]
        return {"head": str(self.head), **numbers, "pairs": pairs}

    def save(self, path: str | Path) -> Path:
        """The folder it was saved to, bit-equal when loaded again.

        Args:
            path: Folder to make, or a result of whence to replace.

        Raises:
            FileFormatError: Something else is there; choose another path.

        Example:
            >>> pairs.save("runs/induction")  # doctest: +SKIP
        """
        meta = {"head": str(self.head), "provenance": self.provenance}
        meta |= {f"{side}_names": list(getattr(self, f"{side}_nodes").names) for side in ("query", "key")}
        tensors = {"query_vectors": self.query_vectors, "key_vectors": self.key_vectors}
        tensors |= {f"{side}_nodes": getattr(self, f"{side}_nodes").columns() for side in ("query", "key")}
        tensors["score"] = torch.tensor([self.score, self.weight], dtype=torch.float64)
        return store.write(path, "qk", meta, tensors)

    @staticmethod
    def load(path: str | Path) -> "QKAttribution":
        """What `save` wrote; needs neither the model nor transformers.

        Args:
            path: The folder.

        Raises:
            FileFormatError: Not QK attributions, damaged, or of a newer version (upgrade whence).

        Example:
            >>> QKAttribution.load("runs/induction").top(5)  # doctest: +SKIP
        """
        record = store.read(path, "qk")
        try:
            meta, tensors = record.meta, record.tensors
            query, key = (NodeTable.from_columns(meta[f"{s}_names"], tensors[f"{s}_nodes"]) for s in ("query", "key"))
            score, weight = tensors["score"].tolist()
            vectors = (tensors["query_vectors"], tensors["key_vectors"])
            return QKAttribution(Node.parse(meta["head"]), query, key, *vectors, score, weight, meta["provenance"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} does not describe QK attributions: {error}.") from error

    def __repr__(self) -> str:
        shape = f"{len(self.query_nodes)} × {len(self.key_nodes)} pairs"
        return f"QKAttribution({self.head}: {shape}, score {self.score:+.4f}, remainder {self.remainder:+.1e})"

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def _rows(self) -> Iterator[tuple[int, Float[Tensor, "row key_node"]]]:
        for start in range(0, len(self.query_vectors), ROWS_AT_ONCE):
            yield start, self.query_vectors[start : start + ROWS_AT_ONCE] @ self.key_vectors.T
