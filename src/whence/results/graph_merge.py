"""Shards of one graph put together: the same nodes, each row once, in whatever order the shards come.

Cost: none beyond the shards; blocks are taken over as they are. Knows nothing of how the rows were split.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from whence.results.certificate import Certificate
from whence.results.graph_data import AnyGraph, GraphData
from whence.results.kinds import of_kind
from whence.results.weights import Weights

ALIKE = ("input_tokens", "logit_probabilities", "active_features", "selected_features")


def merge(parts: Sequence[AnyGraph]) -> AnyGraph:
    """The whole graph.

    Raises:
        ValueError: no parts, parts of different graphs, a shard or a row given twice or missing.
    """
    if not parts:
        raise ValueError("no graphs were given to merge; pass the shards of one run")
    _refuse_strangers(parts)
    _refuse_gaps(parts)
    _refuse_other_rows(parts)
    ordered = sorted(parts, key=_shard)
    blocks = sorted((block for part in ordered for block in part.weights), key=lambda block: int(block.rows.min()))
    provenance: dict[str, Any] = {**ordered[0].provenance, "shard": None, "merged": len(parts)}
    return replace(
        ordered[0],
        weights=Weights(ordered[0].weights.shape, blocks),
        certificate=_together([part.certificate for part in ordered]),
        provenance=provenance,
    )


def _shard(part: GraphData) -> tuple[int, int]:
    shard = part.provenance.get("shard")
    if shard is None:
        raise ValueError(f"the graph of {part.prompt!r} is whole, not a shard of one: its run had no shard=")
    return int(shard[0]), int(shard[1])


def _refuse_strangers(parts: Sequence[GraphData]) -> None:
    first = parts[0]
    for part in parts[1:]:
        same = len(part.nodes) == len(first.nodes) and list(part.nodes.names) == list(first.nodes.names)
        same = same and torch.equal(part.nodes.columns(), first.nodes.columns())
        same = same and all(torch.equal(getattr(part, name), getattr(first, name)) for name in ALIKE)
        same = same and _about(part) == _about(first)
        if not same:
            raise ValueError(
                f"the graphs of {first.prompt!r} and {part.prompt!r} are not shards of one run: their nodes, targets "
                "or settings differ. Run every shard with the same arguments but shard=."
            )


def _about(part: GraphData) -> dict[str, Any]:
    return {name: value for name, value in part.provenance.items() if name not in ("shard", "device")}


def _refuse_gaps(parts: Sequence[GraphData]) -> None:
    numbers, totals = zip(*map(_shard, parts), strict=True)
    missing = sorted(set(range(totals[0])) - set(numbers))
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if len(set(totals)) > 1 or missing or twice:
        raise ValueError(
            f"shards {sorted(numbers)} of {sorted(set(totals))} were given"
            + (f"; missing: {missing}" if missing else "")
            + (f"; given twice: {twice}" if twice else "")
        )


def _refuse_other_rows(parts: Sequence[GraphData]) -> None:
    """Shards may be numbered well and yet be of runs that split their rows differently."""
    nodes = parts[0].nodes
    given = torch.zeros(len(nodes), dtype=torch.int64)
    for block in (block for part in parts for block in part.weights):
        given[block.rows] += 1
    explained = of_kind(nodes, "feature", "output")
    missing, twice = (explained & (given == 0)).nonzero(), (given > 1).nonzero()
    if len(missing) or len(twice):
        found = [f"{nodes[int(row)]} is in no shard" for row in missing[:1]]
        found += [f"{nodes[int(row)]} is in {int(given[row])}" for row in twice[:1]]
        raise ValueError(
            f"the shards do not make one graph: {len(missing)} rows are missing and {len(twice)} are there more than "
            f"once ({', '.join(found)}). Run every shard with the same arguments, memory= included."
        )


def _together(parts: Sequence[Certificate]) -> Certificate:
    rows, value, gap, magnitude = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("rows", "value", "gap", "magnitude")
    )
    order = rows.argsort()
    return Certificate(rows[order], value[order], gap[order], magnitude[order], parts[0].bound)
