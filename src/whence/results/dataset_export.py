"""Dataset attributions written as CSV, Parquet and JSON, or laid out as a DataFrame.

Rows are those of `dataset_records.py`, written as they come, so that memory holds some rows of a block; JSON and
DataFrames are made whole. Cost: that of the rows. Knows nothing of blocks.
"""

import csv
import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.results.dataset_keys import site_of
from whence.results.dataset_opened import Opened
from whence.results.dataset_records import ERROR, SAID, Asked, records
from whence.results.keys import Node

if TYPE_CHECKING:
    import pandas


def to_csv(asked: Asked, path: str | Path) -> Path:
    """A CSV file; what is not known is empty.

    Args:
        asked: What to write.
        path: The file.
    """
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(asked.names)
        for columns in records(asked):
            writer.writerows(zip(*columns.values(), strict=True))
    return Path(path)


def to_parquet(asked: Asked, path: str | Path) -> Path:
    """A Parquet file, a row group a run of rows.

    Args:
        asked: What to write.
        path: The file.

    Raises:
        ImportError: No pyarrow: pip install 'whence[parquet]'.
    """
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError("to_parquet needs pyarrow: pip install 'whence[parquet]'") from error
    types: dict[type, Any] = {str: arrow.string(), bool: arrow.bool_(), float: arrow.float64()}
    schema = arrow.schema([(name, types[SAID.get(name, float)]) for name in asked.names])
    with parquet.ParquetWriter(str(path), schema) as writer:
        for columns in records(asked):
            writer.write_table(arrow.table(columns, schema=schema))
    return Path(path)


def to_dataframe(asked: Asked) -> "pandas.DataFrame":
    """The same as a DataFrame, in memory.

    Args:
        asked: What to lay out.

    Raises:
        ImportError: No pandas: pip install pandas.
    """
    try:
        pandas: Any = import_module("pandas")
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas") from error
    out: dict[str, list[Any]] = {name: [] for name in asked.names}
    for columns in records(asked):
        for name, values in columns.items():
            out[name] += values
    numbers = {name: "float64" for name in asked.names if name not in SAID}
    return pandas.DataFrame(out).astype(numbers)


def to_graph_json(asked: Asked, path: str | Path | None = None) -> dict[str, Any]:
    """Nodes, and links with the first metric as their weight; written to a file as well when a path is given.

    Args:
        asked: What to write.
        path: The file.
    """
    links: list[dict[str, Any]] = []
    metric = asked.metrics[0]
    for columns in records(asked):
        kept = zip(*(columns[name] for name in ("source", "target", "in_sum", metric, metric + ERROR)), strict=True)
        for source, target, in_sum, weight, error in kept:
            link = {"source": source, "target": target, "in_sum": in_sum, "weight": weight, "standard_error": error}
            links.append(link)
    keys = dict.fromkeys(link[end] for link in links for end in ("source", "target"))
    header = asked.opened.header
    document = {
        "metadata": {
            "kind": "dataset_attributions",
            "schema_version": 1,
            "metric": metric,
            "normalise": asked.normalise,
            "k": asked.k,
            "tokens": header.tokens,
            "windows": len(header.windows),
            "generator": {"name": "whence", "version": version("whence")},
        },
        "nodes": [_node(asked.opened, key) for key in keys],
        "links": links,
    }
    if path is not None:
        Path(path).write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    return document


def _node(opened: Opened, key: str) -> dict[str, Any]:
    node = Node.parse(key)
    return {"node_id": key, "site": site_of(node)[0], "layer": node.layer, "token": opened.token(node)}
