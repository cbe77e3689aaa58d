"""How dataset attributions are shown and handed on: tables, a picture, CSV, Parquet, JSON, DataFrames.

Cost: that of the blocks that are read. It knows nothing of single units.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.results import dataset_export as export
from whence.results.dataset_normalise import Metric, Normalise
from whence.results.dataset_opened import Opened
from whence.results.dataset_plot import plot
from whence.results.dataset_records import Asked, counted
from whence.results.dataset_render import said, sites_table
from whence.results.dataset_sites import How, layer_matrix

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import rich.table


class DatasetViews(Opened):
    """What a `DatasetAttributions` can be turned into."""

    def __repr__(self) -> str:
        """One line: blocks, sites, tokens and windows."""
        return f"{type(self).__name__}({said(self.header)})"

    def table(self) -> "rich.table.Table":
        """A table for a terminal: the sites, and how many of their units are stored.

        Example:
            >>> rich.print(attributions.table())  # doctest: +SKIP
        """
        return sites_table(self.header)

    def plot_layer_matrix(
        self,
        path: str | Path | None = None,
        *,
        metric: Metric = "attr",
        how: How = "sum_abs",
        normalise: Normalise = "token",
    ) -> "matplotlib.figure.Figure":
        """A heat map of the matrix of sites; colour is a number's share of its row.

        Args:
            path: Where to save it as well: .png, .svg or .pdf.
            metric: Which number.
            how: "sum_abs", "rms" or "sum" over the units of two sites.
            normalise: What the number is divided by.

        Raises:
            ImportError: No matplotlib: pip install 'whence[plot]'.
            ValueError: Another suffix or word, or a number that is not there.

        Example:
            >>> attributions.plot_layer_matrix("sites.png")  # doctest: +SKIP
        """
        return plot(layer_matrix(self, metric, how, normalise), path)

    def to_csv(
        self,
        path: str | Path,
        k: int | None = None,
        *,
        metrics: Sequence[Metric] | None = None,
        normalise: Normalise = "token",
    ) -> Path:
        """A CSV file with a row an edge: keys, tokens, values and standard errors; what is not known is empty.

        Args:
            path: The file.
            k: Sources of each target, the largest by the first metric; None: every edge that is not 0.
            metrics: Which numbers; None: all that were counted.
            normalise: What they are divided by.

        Raises:
            ValueError: No metric, one that is not there, or k below 1.

        Example:
            >>> attributions.to_csv("edges.csv", k=20)  # doctest: +SKIP
        """
        return export.to_csv(self._asked(metrics, normalise, k), path)

    def to_parquet(
        self,
        path: str | Path,
        k: int | None = None,
        *,
        metrics: Sequence[Metric] | None = None,
        normalise: Normalise = "token",
    ) -> Path:
        """The table of `to_csv` as a Parquet file.

        Args:
            path: The file.
            k: Sources of each target, the largest by the first metric; None: every edge that is not 0.
            metrics: Which numbers; None: all that were counted.
            normalise: What they are divided by.

        Raises:
            ImportError: No pyarrow: pip install 'whence[parquet]'.
            ValueError: No metric, one that is not there, or k below 1.

        Example:
            >>> attributions.to_parquet("edges.parquet")  # doctest: +SKIP
        """
        return export.to_parquet(self._asked(metrics, normalise, k), path)

    def to_dataframe(
        self, k: int | None = None, *, metrics: Sequence[Metric] | None = None, normalise: Normalise = "token"
    ) -> "pandas.DataFrame":
        """The table of `to_csv` as a DataFrame.

        Args:
            k: Sources of each target, the largest by the first metric; None: every edge that is not 0.
            metrics: Which numbers; None: all that were counted.
            normalise: What they are divided by.

        Raises:
            ImportError: No pandas: pip install pandas.
            ValueError: No metric, one that is not there, or k below 1.

        Example:
            >>> attributions.to_dataframe(k=5).sort_values("attr").tail(3)["source"]  # doctest: +SKIP
        """
        return export.to_dataframe(self._asked(metrics, normalise, k))

    def to_graph_json(
        self,
        path: str | Path | None = None,
        k: int = 10,
        *,
        metric: Metric = "attr",
        normalise: Normalise = "token",
    ) -> dict[str, Any]:
        """Metadata, nodes (key, site, layer, token) and links (source, target, weight, standard error) as JSON.

        Args:
            path: The file to write as well.
            k: Sources of each target, the largest.
            metric: What the weight of a link is.
            normalise: What it is divided by.

        Raises:
            ValueError: A metric that is not there, or k below 1.

        Example:
            >>> len(attributions.to_graph_json(k=3)["links"])  # doctest: +SKIP
            1536
        """
        return export.to_graph_json(Asked(self, (metric,), normalise, k), path)

    def _asked(self, metrics: Sequence[Metric] | None, normalise: Normalise, k: int | None) -> Asked:
        wanted = counted(self, normalise) if metrics is None else tuple(metrics)
        return Asked(self, wanted, normalise, k)
