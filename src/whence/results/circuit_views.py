"""A circuit as people and other tools see it: in a terminal, a notebook, a picture, a page and tables.

Cost: one record a node and an edge that is shown. It knows nothing of how circuits are made.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from whence.results import circuit_files, circuit_frame, circuit_page, circuit_plot, circuit_render
from whence.results.circuit_files import Table
from whence.results.circuit_parts import CircuitParts
from whence.results.graph_render import plain

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import rich.table


class CircuitViews(CircuitParts):
    """A circuit that can be shown.

    Example:
        >>> circuit.to_html("agreement.html")  # doctest: +SKIP
        PosixPath('agreement.html')
    """

    def table(self, k: int = 15) -> "rich.table.Table":
        """A table for the terminal: the nodes with the largest effects, and the totals.

        Args:
            k: How many nodes.

        Example:
            >>> rich.print(circuit.table(5))  # doctest: +SKIP
        """
        return circuit_render.table(self, k)

    def plot(self, path: str | Path | None = None, *, positions: bool = True) -> "matplotlib.figure.Figure":
        """A picture of the circuit; cut it first, for a picture shows some sixty nodes well.

        Args:
            path: Where to save it as well: .png, .svg or .pdf.
            positions: Columns are slots and rows sites, where the circuit has slots; else positions are summed,
                columns are kinds of sites and rows layers.

        Raises:
            ImportError: No matplotlib: pip install 'whence[plot]'.
            ValueError: A suffix that is none of those.

        Example:
            >>> figure = circuit.top(40).plot("circuit.svg")  # doctest: +SKIP
        """
        return circuit_plot.plot(self, path, positions)

    def to_html(self, path: str | Path, *, nodes: int = 400, edges: int = 4000) -> Path:
        """One page that opens from disk, the same that graphs open in: nodes, edges, a slider, every number as text.

        Args:
            path: The file to write.
            nodes: At most so many nodes, those with the largest effects; the metric always.
            edges: At most so many edges among them, the strongest.

        Example:
            >>> circuit.to_html("agreement.html")  # doctest: +SKIP
            PosixPath('agreement.html')
        """
        return circuit_page.write_page(self, path, nodes, edges)

    def to_csv(self, path: str | Path, what: Table = "edges") -> Path:
        """The edges (source, target, weight) or the nodes (node, effect, name) as a table.

        Args:
            path: The file to write.
            what: "edges" or "nodes".

        Raises:
            ValueError: Another word for `what`.

        Example:
            >>> circuit.to_csv("edges.csv")  # doctest: +SKIP
            PosixPath('edges.csv')
        """
        return circuit_files.write_csv(self, path, what)

    def to_dataframe(self, what: Table = "nodes") -> "pandas.DataFrame":
        """The nodes with their effects, or the edges, as a pandas DataFrame.

        Args:
            what: "nodes" or "edges".

        Raises:
            ImportError: No pandas: pip install pandas.
            ValueError: Another word for `what`.

        Example:
            >>> circuit.to_dataframe().groupby("layer")["effect"].sum()  # doctest: +SKIP
        """
        return circuit_frame.frame(self, what)

    def __repr__(self) -> str:
        return circuit_render.line(self)

    def __str__(self) -> str:
        return plain(self.table())

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def _repr_html_(self) -> str:
        return circuit_render.html(self)
