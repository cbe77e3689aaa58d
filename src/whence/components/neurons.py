"""A model's own MLP neurons in the place of a dictionary: no training, no reconstruction error, any supported model.

A neuron writes a_j W_down[:, j]. What it reads is linear in the MLP's input once its gate is dealt with:

    plain    a = act(W_up x + b)                row: W_up, explains the pre-activation
    gated    a = act(W_gate x) (W_up x)         gate "frozen": row act(g) W_up, explains a itself, exactly
                                                gate "derivative": row act(g) W_up + act'(g) u W_gate, a's first order

Knows nothing of models; the rows are built where one is linearized.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Neurons:
    """MLP neurons as the units of an attribution graph.

    Args:
        gate: how a gated neuron reads: "frozen" holds its gate; "derivative" follows gate and up to first order.

    Raises:
        ValueError: another word.

    Example:
        >>> Neurons(gate="derivative")
        Neurons(gate='derivative')
    """

    gate: Literal["frozen", "derivative"] = "frozen"

    def __post_init__(self) -> None:
        if self.gate not in ("frozen", "derivative"):
            raise ValueError(f"Neurons(gate={self.gate!r}); it is 'frozen' or 'derivative'")

    def describe(self) -> dict[str, str]:
        """For a result's provenance."""
        return {"kind": "neurons", "gate": self.gate}
