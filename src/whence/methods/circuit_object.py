"""Circuit: the plain data of a circuit, and what can be asked of it with the model at hand."""

from dataclasses import dataclass

from whence.results.circuit_data import CircuitData


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(CircuitData):
    """A sparse circuit; see `CircuitData` for what it holds.

    Example:
        >>> circuit = Circuit.load("runs/agreement")  # doctest: +SKIP
    """
