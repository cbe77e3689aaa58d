"""Whether a circuit does what the model does: the model run with everything else ablated, of nodes or of edges.

    faithfulness = (m(C) - m(0)) / (m(M) - m(0)),    completeness = the same with all but C kept

A kept unit says what the ablated run makes it say. An ablated one says what it says on average ("mean": over the pairs'
patch prompts, or clean ones where there are none, position by position where these align), nothing ("zero"), or what it
says on its own patch prompt ("resample"). Errors are nodes like others ("default"), all kept ("keep") or all ablated
("remove"), in the circuit, its complement and the empty circuit alike. With edges=True, a unit of the circuit hears
through the circuit's edges what their sources say, and from all other units what these say ablated.

Token embeddings as whole vectors are the input, and stay as they are unless embeddings="default" makes them a node like
others; embeddings with an SAE are a site like others. Cost: a forward pass for each circuit; with edges=True a stretch
of one for each different set of sources. Knows nothing of how circuits are found.
"""

from collections.abc import Sequence
from typing import Any

from whence.engine.ablations.scoring import Ablation, Embeddings, Errors, Scoring
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.circuit_faithfulness import CircuitScore
from whence.results.circuit_parts import CircuitParts
from whence.results.circuit_sizes import above, largest, size
from whence.results.circuit_sweep import SIZES, CircuitSweep
from whence.targets.pairs import Pairs


def faithfulness(
    circuit: CircuitParts,
    model: Model,
    dictionaries: Any,
    pairs: Pairs,
    *,
    metric: Any = None,
    ablation: Ablation = "mean",
    errors: Errors = "default",
    embeddings: Embeddings = "keep",
    edges: bool = False,
    start_layer: int = 0,
    batch_size: int = 32,
    progress: Progress = silent,
) -> CircuitScore:
    """How much of the metric is left when everything but the circuit is ablated: 1 is all, 0 is nothing.

    Args:
        circuit: the circuit.
        model: the model.
        dictionaries: those the circuit was found with, and its other units, as in `whence.feature_circuit`.
        pairs: prompts to run it on; where the circuit has slots, pairs with the same ones, or of its length.
        metric: what counts; None for the pairs' own answers.
        ablation: "mean", "zero" or "resample".
        errors: "default", "keep" or "remove".
        embeddings: "keep" leaves token embeddings without an SAE as they are; "default" makes them a node like others.
        edges: ablate all edges but the circuit's, instead of all nodes but the circuit's. A node that no edge leads to,
            as where its gate was closed, then says what it says ablated: find edges with
            edge_gradient="integrated_gradients" for this.
        start_layer: sites of lower layers are left as they are.
        batch_size: pairs at a time.
        progress: told of pairs done.

    Raises:
        ValueError: a choice there is none of, a node or edge that these dictionaries have no place for, positions that
            do not match, or "resample" without patch prompts.
        TypeError: pairs that are no `whence.Pairs`.

    Example:
        >>> score = circuit.faithfulness(model, saes, pairs)  # doctest: +SKIP
        >>> score.value, score.share  # doctest: +SKIP
        (0.93, 0.04)
    """
    how = Scoring(
        model, dictionaries, pairs, metric, ablation, errors, embeddings, edges, start_layer, batch_size, progress
    )
    return how.scores([circuit], ["faithfulness"])[0]


def completeness(
    circuit: CircuitParts,
    model: Model,
    dictionaries: Any,
    pairs: Pairs,
    *,
    metric: Any = None,
    ablation: Ablation = "mean",
    errors: Errors = "default",
    embeddings: Embeddings = "keep",
    edges: bool = False,
    start_layer: int = 0,
    batch_size: int = 32,
    progress: Progress = silent,
) -> CircuitScore:
    """How much of the metric is left when the circuit is ablated and all else kept: 0 if the circuit is all there is.

    Args:
        circuit: the circuit.
        model: the model.
        dictionaries: as in `faithfulness`, like all that follow.
        pairs: prompts to run it on.
        metric: what counts.
        ablation: "mean", "zero" or "resample".
        errors: "default", "keep" or "remove".
        embeddings: "keep" or "default".
        edges: ablate the circuit's edges, instead of its nodes.
        start_layer: sites of lower layers are left as they are.
        batch_size: pairs at a time.
        progress: told of pairs done.

    Raises:
        ValueError, TypeError: as `faithfulness`.

    Example:
        >>> circuit.completeness(model, saes, pairs).value  # doctest: +SKIP
        0.12
    """
    how = Scoring(
        model, dictionaries, pairs, metric, ablation, errors, embeddings, edges, start_layer, batch_size, progress
    )
    return how.scores([circuit], ["completeness"])[0]


def sweep(
    circuit: CircuitParts,
    model: Model,
    dictionaries: Any,
    pairs: Pairs,
    *,
    thresholds: Sequence[float] | None = None,
    sizes: Sequence[float] | None = None,
    metric: Any = None,
    ablation: Ablation = "mean",
    errors: Errors = "default",
    embeddings: Embeddings = "keep",
    edges: bool = False,
    start_layer: int = 0,
    batch_size: int = 32,
    progress: Progress = silent,
) -> CircuitSweep:
    """Faithfulness and completeness of smaller and smaller parts of a circuit.

    Args:
        circuit: the circuit, found with low thresholds.
        model: the model.
        dictionaries: as in `faithfulness`, like all that follow but `thresholds` and `sizes`.
        pairs: prompts to run it on.
        thresholds: of effects, or with edges=True of weights; a part has what exceeds its threshold.
        sizes: instead of thresholds, which share of the nodes (or edges) each part has, the strongest first; None for
            ten from 0.001 to 1.
        metric: what counts.
        ablation: "mean", "zero" or "resample".
        errors: "default", "keep" or "remove".
        embeddings: "keep" or "default".
        edges: parts differ in their edges, and edges are ablated.
        start_layer: sites of lower layers are left as they are.
        batch_size: pairs at a time.
        progress: told of pairs done.

    Raises:
        ValueError, TypeError: as `faithfulness`; both thresholds and sizes, none at all, or sizes outside 0 to 1.

    Example:
        >>> circuit.sweep(model, saes, pairs, thresholds=(0.5, 0.1, 0.02)).plot("sweep.png")  # doctest: +SKIP
    """
    if thresholds is not None and sizes is not None:
        raise ValueError("sweep takes thresholds= or sizes=, not both")
    given = tuple(SIZES if sizes is None else sizes) if thresholds is None else tuple(thresholds)
    if not given:
        raise ValueError(f"sweep: {'sizes' if thresholds is None else 'thresholds'}= has no number; give at least one")
    how = Scoring(
        model, dictionaries, pairs, metric, ablation, errors, embeddings, edges, start_layer, batch_size, progress
    )
    cut = largest if thresholds is None else above
    parts = [cut(circuit, one, edges=edges) for one in given]
    scores = how.scores(parts, ["faithfulness", "completeness"])
    whole = size(circuit, edges=edges)
    return CircuitSweep(
        by="edges" if edges else "nodes",
        sizes=given if thresholds is None else tuple(size(part, edges=edges) / max(1, whole) for part in parts),
        thresholds=None if thresholds is None else given,
        faithfulness=tuple(scores[0::2]),
        completeness=tuple(scores[1::2]),
    )
