"""Tables and JSON against a list of every edge."""

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from dataset_random import PAIRS, made
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS, STREAM

Record = dict[str, Any]


def _records(attributions: DatasetAttributions, metrics: Any = METRICS, normalise: Any = "token") -> list[Record]:
    """Every edge with a number that is not 0."""
    out: list[Record] = []
    for (to, site), in_sum in PAIRS.items():
        if to == STREAM:
            continue
        blocks = {metric: attributions.block(to, site, metric=metric, normalise=normalise) for metric in metrics}
        first = blocks[metrics[0]]
        for i, target in enumerate(first.targets):
            for j, source in enumerate(first.sources):
                record: Record = {"target": str(target), "source": str(source), "in_sum": in_sum}
                record |= {"target_token": attributions.token(target), "source_token": attributions.token(source)}
                for metric, block in blocks.items():
                    assert block.standard_errors is not None
                    record[metric] = float(block.values[i, j])
                    record[f"{metric}.standard_error"] = float(block.standard_errors[i, j])
                if any(record[metric] for metric in metrics):
                    out.append(record)
    return out


def _by_edge(records: list[Record]) -> dict[tuple[str, str], Record]:
    found = {(record["target"], record["source"]): record for record in records}
    assert len(found) == len(records)
    return found


def _read(path: Path) -> list[Record]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in row:
            if name in ("target_token", "source_token"):
                row[name] = row[name] or None
            elif name not in ("target", "source"):
                row[name] = row[name] == "True" if name == "in_sum" else float(row[name])
    return rows


@pytest.mark.parametrize("ties", [False, True])
def test_csv_has_every_edge_with_all_its_numbers(tmp_path: Path, ties: bool) -> None:
    attributions = DatasetAttributions(made(ties=ties).store)

    found = _read(attributions.to_csv(tmp_path / "edges.csv"))

    assert _by_edge(found) == _by_edge(_records(attributions))
    assert any(record["source_token"] == "\n" for record in found)


def test_k_keeps_of_each_target_the_sources_of_its_ranking(tmp_path: Path) -> None:
    attributions = DatasetAttributions(made(1, ties=True).store)
    found = _read(attributions.to_csv(tmp_path / "edges.csv", 3, metrics=["attr_abs", "rms"], normalise="source"))

    for target in {record["target"] for record in _records(attributions)}:
        ranking = attributions.top_sources(target, 3, metric="attr_abs", normalise="source", sign="both")
        kept = {record["source"]: record["attr_abs"] for record in found if record["target"] == target}
        assert kept == {str(entry.key): entry.value for entry in ranking}
    every = _by_edge(_records(attributions, ("attr_abs", "rms"), "source"))
    assert all(every[edge] == record for edge, record in _by_edge(found).items())


def test_what_is_not_known_is_empty(tmp_path: Path) -> None:
    store = made().store
    store.header.sources["0.attn.v"].quantities["importance"][0] = 0  # pyright: ignore[reportIndexIssue]
    path = DatasetAttributions(store).to_csv(tmp_path / "edges.csv", normalise="source")

    text = path.read_text(encoding="utf-8")

    assert "nan" not in text
    assert ",0.attn.v:1," not in text
    assert ",0.attn.v:2," in text


def test_a_share_is_written_of_the_metrics_that_have_one(tmp_path: Path) -> None:
    path = DatasetAttributions(made().store).to_csv(tmp_path / "edges.csv", normalise="share")

    assert (
        path.read_text(encoding="utf-8")
        .splitlines()[0]
        .endswith("attr,attr.standard_error,attr_abs,attr_abs.standard_error")
    )


def test_a_dataframe_has_the_same_rows() -> None:
    attributions = DatasetAttributions(made().store)
    frame = attributions.to_dataframe(2, metrics=["attr"])

    assert list(frame.columns) == [
        *("target", "source", "in_sum", "target_token", "source_token", "attr", "attr.standard_error")
    ]
    assert str(frame["attr"].dtype) == "float64"
    every = _by_edge(_records(attributions, ("attr",)))
    for row in frame.itertuples():
        assert every[row.target, row.source]["attr"] == row.attr
    assert len(frame) == sum(min(2, len(attributions.top_sources(t, 9, sign="both"))) for t in frame["target"].unique())


def test_json_has_nodes_for_both_ends_of_every_link(tmp_path: Path) -> None:
    attributions = DatasetAttributions(made().store)
    document = attributions.to_graph_json(tmp_path / "graph.json", 2, metric="attr_abs", normalise="share")

    assert json.loads((tmp_path / "graph.json").read_text(encoding="utf-8")) == document
    assert document["metadata"]["kind"] == "dataset_attributions"
    nodes = {node["node_id"]: node for node in document["nodes"]}
    assert len(nodes) == len(document["nodes"])
    assert {link[end] for link in document["links"] for end in ("source", "target")} == {*nodes}
    for link in document["links"]:
        found = attributions.between(link["source"], link["target"], metric="attr_abs", normalise="share")
        assert (link["weight"], link["standard_error"], link["in_sum"]) == (
            *(found.value, found.standard_error, found.in_sum),
        )
    assert nodes["1.attn.head:3.q"] == {
        "node_id": "1.attn.head:3.q",
        "site": "1.attn.head.q",
        "layer": 1,
        "token": None,
    }
    assert all(math.isfinite(link["weight"]) for link in document["links"])


def test_parquet_has_the_rows_of_csv_with_their_types(tmp_path: Path) -> None:
    attributions = DatasetAttributions(made().store)
    table = pyarrow.parquet.read_table(attributions.to_parquet(tmp_path / "edges.parquet", 2))

    assert _by_edge(table.to_pylist()) == _by_edge(_read(attributions.to_csv(tmp_path / "edges.csv", 2)))
    types = [str(field.type) for field in table.schema]
    assert types == ["string", "string", "bool", "string", "string", *["double"] * 6]


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ImportError, match=r"pip install 'whence\[parquet\]'"):
        DatasetAttributions(made().store).to_parquet(tmp_path / "edges.parquet")


@pytest.mark.parametrize(("k", "metrics"), [(0, ["attr"]), (3, [])])
def test_tables_of_nothing_are_refused(tmp_path: Path, k: int, metrics: Any) -> None:
    with pytest.raises(ValueError, match="at least one metric and one source"):
        DatasetAttributions(made().store).to_csv(tmp_path / "edges.csv", k, metrics=metrics)


def test_the_streams_coordinates_are_not_written(tmp_path: Path) -> None:
    store = made().store
    assert torch.count_nonzero(store.block(STREAM, "embed", "attr"))

    assert "stream" not in DatasetAttributions(store).to_csv(tmp_path / "e.csv").read_text(encoding="utf-8")
