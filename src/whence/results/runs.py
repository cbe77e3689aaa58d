"""A run of rows that differ in their unit only, so that a table need not build a node per neuron.

GPT-2 has 36,864 neurons: a table of them carries twelve runs, each a template node and the units that stand in it.
Row u of a run, with `inner` = n, has

    n None: index u        n, axis "index": index (u // n, u % n)        n, axis "source": index u // n, source u % n
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from whence.results.keys import Node


@dataclass(frozen=True)
class Run:
    """Consecutive rows that differ in their unit only.

    Args:
        node: The template; its index (and source) are placeholders, replaced row by row.
        units: The unit of each row; None for one row, the template itself.
        inner: How many neurons an expert has, or source tokens a head, where a unit stands for both numbers.
        axis: Where the second number goes.

    Raises:
        ValueError: `units` and template do not make nodes, or `inner` is not positive.

    Example:
        >>> [str(row) for row in Run(Node("attn.head", 3, 0), range(2))]
        ['3.attn.head:0', '3.attn.head:1']
    """

    node: Node
    units: range | tuple[int, ...] | None = None
    inner: int | None = None
    axis: Literal["index", "source"] = "index"

    def __post_init__(self) -> None:
        if self.inner is not None and self.inner < 1:
            raise ValueError(f"run of '{self.node}': inner is {self.inner}; it counts units, so at least 1.")
        if self.units:
            _ = self[0], self[-1]  # making them checks them

    def __len__(self) -> int:
        return 1 if self.units is None else len(self.units)

    def __getitem__(self, row: int) -> Node:
        unit = None if self.units is None else self.units[row]
        if unit is None:
            return self.node
        if self.inner is None:
            return replace(self.node, index=unit)
        outer, inner = divmod(unit, self.inner)
        if self.axis == "source":
            return replace(self.node, index=outer, source=inner)
        return replace(self.node, index=(outer, inner))

    def __iter__(self) -> Iterator[Node]:
        return (self[row] for row in range(len(self)))

    def find(self, node: Node) -> int | None:
        """The row of a node in this run, or None."""
        if self.units is None:
            return 0 if node == self.node else None
        unit = self._unit(node)
        if unit is None or unit not in self.units:
            return None
        row = self.units.index(unit)
        return row if self[row] == node else None

    def to_json(self) -> dict[str, Any]:
        """The run in JSON's types; `from_json` undoes it."""
        units = self.units
        spelled = {"range": [units.start, units.stop, units.step]} if isinstance(units, range) else units
        return {"node": str(self.node), "units": spelled, "inner": self.inner, "axis": self.axis}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Run":
        """The run that `to_json` described."""
        units = data["units"]
        if units is not None:
            units = range(*units["range"]) if isinstance(units, dict) else tuple(units)
        return Run(Node.parse(data["node"]), units, data["inner"], data["axis"])

    def _unit(self, node: Node) -> int | None:
        match self.inner, self.axis, node.index:
            case None, _, int(index):
                return index
            case int(inner), "source", int(index) if node.source is not None:
                return index * inner + node.source
            case int(inner), "index", (outer, index):
                return outer * inner + index
            case _:
                return None
