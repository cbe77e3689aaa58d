"""A graph as people and other tools see it: in a terminal, a notebook, a picture, a page, JSON and a table of edges.

Cost: one record a node and an edge that is shown. It knows nothing of how graphs are made.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.results import graph_files, graph_json, graph_notebook, graph_page, graph_plot, graph_render
from whence.results.graph_scores import ScoredGraph

if TYPE_CHECKING:
    import matplotlib.figure
    import rich.table


class GraphViews(ScoredGraph):
    """A graph that can be shown.

    Example:
        >>> graph.prune().to_html("austin.html")  # doctest: +SKIP
        PosixPath('austin.html')
    """

    def table(self, k: int = 15) -> "rich.table.Table":
        """A table for the terminal: the edges through which most influence flows, and the scores.

        Args:
            k: How many edges.

        Example:
            >>> rich.print(graph.table(5))  # doctest: +SKIP
        """
        return graph_render.table(self, k)

    def plot(self, path: str | Path | None = None) -> "matplotlib.figure.Figure":
        """A picture of the graph, tokens by layers; prune it first, for a picture shows some fifty nodes well.

        Args:
            path: Where to save it as well: .png, .svg or .pdf.

        Raises:
            ImportError: No matplotlib: pip install 'whence[plot]'.
            ValueError: A suffix that is none of those.

        Example:
            >>> figure = graph.prune().plot("graph.svg")  # doctest: +SKIP
        """
        return graph_plot.plot(self, path)

    def to_json(
        self, path: str | Path | None = None, *, slug: str | None = None, legacy_ids: bool = False
    ) -> dict[str, Any]:
        """The graph in the JSON of public viewers, every node and edge; prune it first.

        Args:
            path: Where to write it as well.
            slug: Its name in a viewer's address; None makes one of the prompt.
            legacy_ids: Error nodes as `0_{layer}_{position}`, for viewers that know no other; such an id may be that
                of a feature of layer 0 as well.

        Example:
            >>> graph.prune().to_json("austin.json", slug="austin")["metadata"]["slug"]  # doctest: +SKIP
            'austin'
        """
        return graph_json.to_json(self, path, slug, legacy_ids)

    def to_html(self, path: str | Path, *, nodes: int = 400, edges: int = 4000) -> Path:
        """One page that opens from disk: the nodes by token and layer, their edges, a slider to prune.

        Args:
            path: The file to write.
            nodes: At most so many nodes, those with most influence; tokens and outputs always.
            edges: At most so many edges among them, those through which most influence flows.

        Example:
            >>> graph.to_html("austin.html")  # doctest: +SKIP
            PosixPath('austin.html')
        """
        return graph_page.write_page(self, path, nodes, edges)

    def to_csv(self, path: str | Path) -> Path:
        """The edges as a table: source, target, weight; by target, then by source.

        Args:
            path: The file to write.

        Example:
            >>> graph.prune().to_csv("edges.csv")  # doctest: +SKIP
            PosixPath('edges.csv')
        """
        return graph_files.write_csv(self, path)

    def __repr__(self) -> str:
        return graph_render.line(self)

    def __str__(self) -> str:
        return graph_render.text(self)

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def _repr_html_(self) -> str:
        return graph_notebook.html(self)
