"""Scores as a pandas DataFrame in long form: one row per node × example × position × target."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from whence.results.keys import Node, index_text
from whence.results.scores import Scores

if TYPE_CHECKING:
    import pandas


def frame(scores: Scores) -> "pandas.DataFrame":
    """The values with their key and its fields, the example, the absolute position and the target's label.

    Args:
        scores: What to lay out. `top` first keeps a large table small.

    Raises:
        ImportError: No pandas: pip install pandas.

    Example:
        >>> frame(scores).sort_values("value").tail(3)["key"]  # doctest: +SKIP
    """
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas") from error
    nodes = [_fields(node) for node in scores.keys]
    cells = _cells(scores)
    columns = {name: [row[name] for row in nodes for _ in cells] for name in _fields(Node("rest"))}
    columns |= {name: [cell[name] for cell in cells] * len(nodes) for name in ("example", "position", "target")}
    table = pandas.DataFrame(columns | {"value": scores.values.reshape(-1).numpy()})
    table = table[table["position"].ne(-1)].reset_index(drop=True)  # positions that a shorter prompt does not have
    return table.astype(dict.fromkeys(("layer", "source", "example", "position"), "Int64"))


def _fields(node: Node) -> dict[str, Any]:
    index = None if node.index is None else index_text(node.index)  # text: an expert's neuron has two numbers
    fields = {"layer": node.layer, "name": node.name, "index": index, "end": node.end, "source": node.source}
    return {"key": str(node)} | fields


def _cells(scores: Scores) -> list[dict[str, Any]]:
    """Where each number of one node's row stands, in the order of the tensor."""
    sizes = dict(zip(scores.axes, scores.values.shape, strict=True))
    grid = torch.cartesian_prod(*(torch.arange(sizes.get(axis, 1)) for axis in ("example", "position", "target")))
    return [
        {
            "example": example,
            "position": scores.positions[example][position] if scores.positions[example] else None,
            "target": scores.target_labels[example][target],
        }
        for example, position, target in grid.tolist()
    ]
