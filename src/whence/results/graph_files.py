"""Graphs on disk: a folder of whence's own, and a table of edges.

The blocks of the weights lie one after the other in the large file: their rows, their columns, their values, and how
many of each. Cost of opening: the nodes; the weights are read when they are first used.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import store
from whence.results.certificate import Certificate
from whence.results.edged import Edged
from whence.results.graph_data import AnyGraph, GraphData
from whence.results.keys import LogitTarget
from whence.results.nodes import NodeTable
from whence.results.weights import Block, Weights

_TENSORS = ("logit_probabilities", "input_tokens", "active_features", "activation_values", "selected_features")
_PARTS = ("rows", "columns", "values", "sizes")
_SUMS = ("rows", "value", "gap", "magnitude")


def save(graph: GraphData, path: str | Path) -> Path:
    """The folder it was saved to.

    Args:
        graph: The graph.
        path: Folder to make, or a result of whence to replace.

    Raises:
        FileFormatError: Something else is there; choose another path.

    Example:
        >>> save(graph, "runs/austin")  # doctest: +SKIP
    """
    meta = {
        "names": list(graph.nodes.names),
        "targets": [[target.token_str, target.vocab_idx] for target in graph.logit_targets],
        "vocab_size": graph.vocab_size,
        "prompt": graph.prompt,
        "token_texts": list(graph.token_texts),
        "bound": graph.certificate.bound,
        "provenance": graph.provenance,
        "counts": graph.counts is not None,
    }
    tensors = {name: getattr(graph, name) for name in _TENSORS} | {"nodes": graph.nodes.columns()}
    tensors |= {f"certificate.{name}": getattr(graph.certificate, name) for name in _SUMS}
    tensors |= {} if graph.shares is None else {"shares": graph.shares}
    large = packed("weights", graph.weights) | ({} if graph.counts is None else packed("counts", graph.counts))
    return store.write(path, "graph", meta, tensors, large)


def load(kind: type[AnyGraph], path: str | Path) -> AnyGraph:
    """The graph that `save` wrote there, its weights not read yet.

    Args:
        kind: The class of the graph.
        path: The folder.

    Raises:
        FileFormatError: No graph, damaged, or of a newer version (upgrade whence).

    Example:
        >>> load(Graph, "runs/austin")  # doctest: +SKIP
    """
    record = store.read(path, "graph")
    try:
        return _graph(kind, record.meta, record.tensors, record.large)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} does not describe a graph: {error}.") from error


def write_csv(graph: Edged, path: str | Path) -> Path:
    """The file, one line an edge: source, target, weight.

    Args:
        graph: The graph.
        path: The file to write.

    Example:
        >>> write_csv(graph, "edges.csv")  # doctest: +SKIP
    """
    keys = [str(node) for node in graph.nodes]
    rows, columns, values = graph.weights.coo()
    edges = zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("source", "target", "weight"))
        writer.writerows((keys[source], keys[target], weight) for source, target, weight in edges)
    return Path(path)


def _graph(kind: type[AnyGraph], meta: dict[str, Any], tensors: dict[str, Tensor], large: store.Large) -> AnyGraph:
    nodes = NodeTable.from_columns(meta["names"], tensors["nodes"])
    shape = (len(nodes), len(nodes))
    return kind(
        nodes=nodes,
        weights=Weights(shape, lambda: stored(large, "weights")),
        logit_targets=tuple(LogitTarget(text, index) for text, index in meta["targets"]),
        vocab_size=meta["vocab_size"],
        prompt=meta["prompt"],
        token_texts=tuple(meta["token_texts"]),
        certificate=Certificate(*(tensors[f"certificate.{name}"] for name in _SUMS), bound=meta["bound"]),
        provenance=meta["provenance"],
        shares=tensors.get("shares"),
        counts=Weights(shape, lambda: stored(large, "counts")) if meta["counts"] else None,
        **{name: tensors[name] for name in _TENSORS},
    )


def packed(name: str, weights: Weights) -> dict[str, Tensor]:
    """The tensors of a file: blocks end to end; columns as int32, for they are what a sparse graph has most of.

    Args:
        name: What each tensor's name begins with.
        weights: The edges.
    """
    blocks = [*weights]
    none = torch.zeros(0, dtype=torch.int32)
    sizes = torch.tensor([block.values.shape for block in blocks], dtype=torch.int64).reshape(-1, 2)
    packed = {
        "rows": torch.cat([none, *(block.rows.int() for block in blocks)]),
        "columns": torch.cat([none, *(block.columns.int() for block in blocks)]),
        "values": torch.cat([torch.zeros(0, dtype=weights.dtype), *(block.values.reshape(-1) for block in blocks)]),
        "sizes": sizes,
    }
    return {f"{name}.{part}": packed[part] for part in _PARTS}


def stored(large: store.Large, name: str) -> Sequence[Block]:
    """The blocks of weights that were `packed` into a file, read now.

    Args:
        large: The file.
        name: What each tensor's name begins with.
    """
    rows, columns, values, sizes = (large.tensors[f"{name}.{part}"] for part in _PARTS)
    heights, widths = sizes.T.tolist()
    parts = (
        rows.long().split(heights),
        columns.long().split(widths),
        values.split([height * width for height, width in sizes.tolist()]),
    )
    return [Block(row, column, value.reshape(len(row), -1)) for row, column, value in zip(*parts, strict=True)]
