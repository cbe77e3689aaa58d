"""Circuit: the plain data of a circuit, and what can be asked of it with the model at hand."""

from dataclasses import dataclass

from whence.methods import circuit_evaluation
from whence.results.circuit_data import CircuitData


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(CircuitData):
    """A sparse circuit: nodes with effects and the direct edges between them; `CircuitData` says what each field is.

    `faithfulness`, `completeness` and `sweep` run the model on the circuit alone, or on everything but it; nothing
    they are given is changed.

    Example:
        >>> circuit = Circuit.load("runs/agreement")  # doctest: +SKIP
        >>> circuit.faithfulness(model, saes, held_out_pairs).value  # doctest: +SKIP
        0.94
    """

    faithfulness = circuit_evaluation.faithfulness
    completeness = circuit_evaluation.completeness
    sweep = circuit_evaluation.sweep
