"""How a circuit would change with other examples: a bootstrap over those it was made from.

    resample: as many examples, drawn with replacement;      effects and edges are its means, cut as the circuit was
    Jaccard = |cut ∩ cut of all examples| / |cut ∪ cut of all examples|         1 where both are empty

The cut is a threshold on means, and the k largest of what exceeds it where the circuit is the top k of another. Nodes
are all with an effect in some example; edges are all pairs among the circuit's nodes. Cost: resamples × examples ×
(nodes + edges) products, in parts of bounded memory; nodes twice for a top k. It knows nothing of how likely a new kind
of example is.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from whence.results.circuit_parts import CircuitParts
from whence.results.circuit_samples import Samples
from whence.results.circuit_sites import forward_order
from whence.results.circuit_spread import Spread, Stability
from whence.results.union import union

NUMBERS_AT_ONCE = 2**24  # of resamples × nodes: 128 MiB as float64


def stability(
    circuit: CircuitParts,
    n_resamples: int,
    seed: int,
    node_threshold: float | None,
    edge_threshold: float | None,
    level: float,
) -> Stability:
    """What stays of the circuit over resampled examples.

    Args:
        circuit: A circuit with samples.
        n_resamples: How many draws.
        seed: Of the draws.
        node_threshold: What the size of an effect must exceed; None cuts nodes as the circuit was cut.
        edge_threshold: The same for edges.
        level: Share of the resamples inside the intervals.

    Raises:
        ValueError: No samples, no threshold to be found, nodes that were not cut by means, or numbers out of range.

    Example:
        >>> stability(circuit, 1000, 0, None, None, 0.95).nodes.jaccard.mean()  # doctest: +SKIP
        tensor(0.8120, dtype=torch.float64)
    """
    samples = circuit.samples
    if samples is None or not circuit.examples:
        raise ValueError(
            "the circuit has no samples (it was imported, combined, summed over positions, or is of edges of neurons), "
            "so its examples cannot be resampled. Ask a circuit that whence.feature_circuit made, or that "
            "whence.edge_attribution made of heads and whole MLPs, or a part of one."
        )
    if n_resamples < 1 or not 0 < level < 1:
        raise ValueError(f"n_resamples={n_resamples}, level={level}: at least one resample, and a level within 0 to 1.")
    strongest = circuit.provenance.get("top") if node_threshold is None else None
    node, edge = _node_threshold(circuit, node_threshold), _threshold(circuit, "edge", edge_threshold)
    shares = _shares(circuit.examples, n_resamples, seed)
    tables = [samples.candidates, circuit.nodes.select(torch.arange(len(circuit.nodes) - 1))]
    every, (among, kept) = union(tables, forward_order)
    at_once = max(1, NUMBERS_AT_ONCE // max(n_resamples, circuit.examples))
    limits = shares.new_full((len(shares),), node)
    if strongest is not None:
        limits = _limits(_effects(samples, among, len(every), at_once), shares, min(strongest, len(every)), node)
    nodes = _spread(_effects(samples, among, len(every), at_once), shares, limits, level)
    edges = _spread(
        (part.double() for part in samples.edge.split(at_once, 1)), shares, shares.new_full((len(shares),), edge), level
    )
    return Stability(
        nodes=circuit.nodes.select(torch.arange(len(kept))),
        node=nodes.select(kept),
        target=samples.target,
        source=samples.source,
        edge=edges,
        level=level,
        thresholds={"node": node, "edge": edge},
        top=strongest,
    )


def _node_threshold(circuit: CircuitParts, given: float | None) -> float:
    """The threshold on means that the circuit's nodes exceed, if that is why they are its nodes."""
    if given is None and circuit.provenance.get("gate") == "per_example":
        raise ValueError(
            "the circuit's nodes were kept by what single examples say (gate='per_example'), not by means, which are "
            "what is resampled. Give node_threshold= (and edge_threshold=), thresholds on means."
        )
    if given is None and "top" in circuit.provenance:
        return float(circuit.provenance.get("thresholds", {}).get("node") or 0.0)
    return _threshold(circuit, "node", given)


def _threshold(circuit: CircuitParts, name: str, given: float | None) -> float:
    own = circuit.provenance.get("thresholds", {}).get(name)
    found = own if given is None else given
    if found is None:
        raise ValueError(f"the circuit does not say at which {name} threshold it was cut. Give {name}_threshold=.")
    return float(found)


def _shares(examples: int, resamples: int, seed: int) -> Float64[Tensor, "resample example"]:
    """For each resample, the share of each example in it; the last row is all examples, once each."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(examples, (resamples, examples), generator=random)
    counts = torch.zeros(resamples, examples, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones(1, dtype=torch.float64).expand(resamples, examples))
    return torch.cat([counts, torch.ones(1, examples, dtype=torch.float64)]) / examples


def _effects(samples: Samples, place: Tensor, size: int, at_once: int) -> Iterator[Float64[Tensor, "example part"]]:
    """The effects by example, some nodes at a time."""
    order = place[samples.candidate].argsort(stable=True)
    node, example = place[samples.candidate][order], samples.example[order]
    for start in range(0, max(size, 1), at_once):
        stop = min(start + at_once, size)
        low, high = torch.searchsorted(node, torch.tensor([start, stop])).tolist()
        part = torch.zeros(len(samples.total), stop - start, dtype=torch.float64)
        where = (example[low:high], node[low:high] - start)
        yield part.index_put_(where, samples.effect[order[low:high]].double(), accumulate=True)


def _limits(
    parts: Iterator[Float[Tensor, "example part"]],
    shares: Float64[Tensor, "resample example"],
    k: int,
    threshold: float,
) -> Float64[Tensor, " resample"]:
    """What the size of each resample's k largest means exceeds: the next one's, or the threshold."""
    largest = torch.full((len(shares), k + 1), threshold, dtype=torch.float64)
    for part in parts:
        largest = torch.cat([largest, (shares @ part).abs()], 1).topk(k + 1, 1).values
    return largest[:, -1]


def _spread(
    parts: Iterator[Float[Tensor, "example part"]],
    shares: Float64[Tensor, "resample example"],
    limits: Float64[Tensor, " resample"],
    level: float,
) -> Spread:
    both = either = torch.zeros(len(shares) - 1, dtype=torch.float64)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    found: list[tuple[Tensor, ...]] = []
    for part in parts:
        means = shares @ part
        drawn, whole = means[:-1], means[-1]
        cut, reference = drawn.abs() > limits[:-1, None], whole.abs() > limits[-1]
        both, either = both + _sizes(cut & reference), either + _sizes(cut | reference)
        low, high = drawn.quantile(ends, 0) if drawn.numel() else (whole, whole)
        found.append((whole, low, high, cut.double().mean(0)))
    mean, low, high, kept = (torch.cat(column) for column in zip(*found, strict=True))
    jaccard = torch.where(either > 0, both / either.clamp(min=1), 1.0)
    return Spread(mean, low, high, kept, jaccard)


def _sizes(sets: Bool[Tensor, "resample part"]) -> Float64[Tensor, " resample"]:
    return sets.sum(1).double()
