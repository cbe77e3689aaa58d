"""What a verification found, as plain data: printed as a table, kept as JSON, and a gate for scripts."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from whence.errors import VerificationError
from whence.verification.agreement import Agreement


@dataclass(frozen=True, repr=False)
class VerificationReport:
    """Predicted against measured effects of removing nodes.

    Attributes:
        nodes: keys of the nodes intervened on, strongest first.
        frozen: with attention patterns and norm scales held, as the graph assumes: agreement up to rounding.
        live: with both live: how far the model follows the graph.
        worst_rows: for each node, the key of the row whose frozen effect is furthest off.
        pruned: whether edges had been cut from the graph, so that errors count only where one is left.
    """

    nodes: tuple[str, ...]
    frozen: Agreement
    live: Agreement
    worst_rows: tuple[str, ...]
    pruned: bool = False

    def worst(self, count: int = 5) -> list[tuple[str, str, float]]:
        """The nodes with the largest frozen errors: (node, row, error), worst first, NaN before all.

        Example:
            >>> one = Agreement((0.25,), 1.0, 1.0, 4)
            >>> VerificationReport(("embed:1@0",), one, one, ("output:3@4",)).worst()
            [('embed:1@0', 'output:3@4', 0.25)]
        """
        found = list(zip(self.nodes, self.worst_rows, self.frozen.errors, strict=True))
        return sorted(found, key=lambda entry: -math.inf if math.isnan(entry[2]) else -entry[2])[:count]

    def check(self, max_error: float = 1e-3, *, spearman: float | None = None, sign: float | None = None) -> None:
        """Pass if the graph holds, for scripts and tests.

        Args:
            max_error: the largest error of any node that is let through, frozen.
            spearman: the least rank correlation with the live model.
            sign: the least share of edges with the right sign in the live model.

        Raises:
            VerificationError: naming the first of these that fails, its value and the bound.

        Example:
            >>> one = Agreement((1e-6,), 1.0, 1.0, 4)
            >>> VerificationReport(("embed:1@0",), one, one, ("output:3@4",)).check(max_error=1e-4)
        """
        if not self.frozen.max_error <= max_error:
            node, row, error = self.worst(1)[0]
            raise VerificationError(
                f"removing {node} changes {row} by another amount than its weight: relative error {error:.2e} with "
                f"norms and attention frozen, above {max_error:.0e}. The graph was made from another model, dictionary "
                "or dtype, or some node writes or reads elsewhere than assumed"
            )
        for name, value, bound in (("spearman", self.live.spearman, spearman), ("sign", self.live.sign, sign)):
            if bound is not None and not value >= bound:
                raise VerificationError(
                    f"{name} of predicted and live effects is {value:.3f}, below {bound}: norms and attention carry "
                    "effects that this graph holds frozen"
                )

    def to_json(self) -> dict[str, Any]:
        """Everything in JSON's types; a number that is not defined is None."""
        frozen, live = (_plain(side) for side in (self.frozen, self.live))
        rows = list(self.worst_rows)
        return {
            "nodes": list(self.nodes), "worst_rows": rows, "pruned": self.pruned, "frozen": frozen, "live": live
        }  # fmt: skip

    def __repr__(self) -> str:
        """One line: how many nodes and edges, and how they fared."""
        return (
            f"VerificationReport({len(self.nodes)} nodes, {self.frozen.edges} edges: frozen max error "
            f"{self.frozen.max_error:.1e}; live spearman {self.live.spearman:.3f}, sign {self.live.sign:.3f})"
        )

    def __str__(self) -> str:
        """A table: both comparisons, then the nodes that are furthest off."""
        head = f"{'':8s}{'max error':>12s}{'spearman':>10s}{'sign':>8s}"
        sides = (("frozen", self.frozen), ("live", self.live))
        lines = [f"{name:8s}{a.max_error:12.2e}{a.spearman:10.4f}{a.sign:8.4f}" for name, a in sides]
        worst = [f"{error:12.2e}  {node} -> {row}" for node, row, error in self.worst()]
        title = f"{len(self.nodes)} nodes removed, {self.frozen.edges} edges"
        title += "; the graph is pruned, so only edges that are left are compared" if self.pruned else ""
        return "\n".join([title, head, *lines, "furthest off, frozen:", *worst])


def _plain(side: Agreement) -> dict[str, Any]:
    found = {**asdict(side), "max_error": side.max_error}
    defined = {name: value if math.isfinite(value) else None for name, value in found.items() if name != "errors"}
    return {**defined, "errors": [error if math.isfinite(error) else None for error in side.errors]}
