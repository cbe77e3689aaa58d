"""Dataset attributions: which units feed which, on average over a dataset, as questions to a store of raw sums.

    attr = Σ A    attr_abs = Σ sign(y) A    mean_squared_attr = Σ A²    rms = its root    A[q, p] one pair of positions

Blocks are mapped, so a question about a unit reads one row or column of each; nothing is divided before it is asked.
Cost: that of what is read. Computing needs a model; asking does not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import dataset_queries as queries
from whence.results import dataset_sites as sites_of
from whence.results.dataset_compare import Differences
from whence.results.dataset_ids import find_run, parse_run_id
from whence.results.dataset_memory import Blocks
from whence.results.dataset_normalise import Metric, Normalise
from whence.results.dataset_opened import Opened
from whence.results.dataset_output import unembedding_of
from whence.results.dataset_ranking import Found, Sign
from whence.results.dataset_results import Block, Ranking, SiteMatrix, Units
from whence.results.dataset_runs import find_result
from whence.results.dataset_sites import How
from whence.results.dataset_stability import Stability, stability
from whence.results.dataset_store import open_store
from whence.results.dataset_views import DatasetViews
from whence.results.keys import Node


class DatasetAttributions(DatasetViews):
    """Which units feed which, on average over a dataset.

    Args:
        store: The blocks: of a folder (`load`), or a `MemoryStore`.
        unembedding: The model's unembedding [vocab, d_model], for output tokens that were not named up front; None
            takes the one kept with the blocks, if any.
        model: A whence Model to take it from.

    Example:
        >>> attributions = whence.DatasetAttributions.load("runs/stories")  # doctest: +SKIP
        >>> for entry in attributions.top_sources("2.glu.down:7", k=3):  # doctest: +SKIP
        ...     print(entry.key, entry.value, entry.standard_error)
    """

    def __init__(
        self, store: Blocks, *, unembedding: Float[Tensor, "vocab d_model"] | None = None, model: Any = None
    ) -> None:
        kept = store.extra("unembedding") if unembedding is None and model is None else unembedding
        scale = float(store.header.settings.get("logit_scale", 1.0))
        super().__init__(store, *unembedding_of(kept, model, scale))

    @classmethod
    def load(
        cls, path: str | Path, *, unembedding: Float[Tensor, "vocab d_model"] | None = None, model: Any = None
    ) -> "DatasetAttributions":
        """A store that was written, its blocks mapped rather than read.

        Args:
            path: A store, a sub-run, a folder of sub-runs (its newest finished result), or the id of a run.
            unembedding: As for the class.
            model: As for the class.

        Raises:
            FileFormatError: No store there, a damaged one, or neither a folder nor a run's id.

        Example:
            >>> whence.DatasetAttributions.load("runs/stories").tokens  # doctest: +SKIP
            1048576
        """
        return cls(open_store(_result_of(path)), unembedding=unembedding, model=model)

    @property
    def tokens(self) -> int:
        """How many tokens were counted."""
        return self.header.tokens

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was counted, and how."""
        return self.header.settings

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What else is known of the run."""
        return self.header.provenance

    @property
    def target_sites(self) -> tuple[str, ...]:
        """Sites with targets, in the order of the model."""
        return tuple(self.header.targets)

    @property
    def source_sites(self) -> tuple[str, ...]:
        """Sites with sources, in the order of the model."""
        return tuple(self.header.sources)

    def top_sources(
        self,
        key: str | Node,
        k: int = 10,
        *,
        metric: Metric = "attr",
        sign: Sign = "positive",
        normalise: Normalise = "token",
        offset: int = 0,
        sites: Sequence[str] | None = None,
    ) -> Ranking:
        """What feeds a unit, the strongest first.

        Args:
            key: The target. An output token that was not counted has its `attr` made of the stream's coordinates.
            k: How many.
            metric: "attr", "attr_abs" (signed too: towards a larger |y|), "mean_squared_attr", or its root "rms".
            sign: The "positive" ones, the "negative" ones (the most negative first), or "both" by size.
            normalise: What raw sums are divided by: "token", "source", "share", "target_rms", "none"
                (`whence.results.dataset_normalise` says what each makes of the units).
            offset: How many to pass over, for further pages.
            sites: Only sources of these sites.

        Raises:
            KeyError: No such target, or a dead one. ValueError: A question without an answer; says what to ask.

        Example:
            >>> attributions.top_sources("output:262", 2).keys  # doctest: +SKIP
            [Node(name='glu.down', layer=3, index=4, ...), Node(name='embed', index=17, ...)]
        """
        return queries.top(self, key, "source", k, metric, sign, normalise, offset, sites)

    def top_targets(
        self,
        key: str | Node,
        k: int = 10,
        *,
        metric: Metric = "attr",
        sign: Sign = "positive",
        normalise: Normalise = "token",
        offset: int = 0,
        sites: Sequence[str] | None = None,
    ) -> Ranking:
        """What a unit feeds, the strongest first.

        Args:
            key: The source.
            k: How many.
            metric: As for `top_sources`.
            sign: As for `top_sources`.
            normalise: As for `top_sources`; targets of unlike scale compare by "share" or "target_rms".
            offset: How many to pass over.
            sites: Only targets of these sites; "output.stream" stands for all tokens, made of its coordinates.

        Raises:
            KeyError: No such source, or a dead one. ValueError: A question without an answer; says what to ask.

        Example:
            >>> attributions.top_targets("embed:17", normalise="share")  # doctest: +SKIP
        """
        return queries.top(self, key, "target", k, metric, sign, normalise, offset, sites)

    def between(
        self, source: str | Node, target: str | Node, *, metric: Metric = "attr", normalise: Normalise = "token"
    ) -> Found:
        """The direct attribution from one unit to another, with its standard error.

        Args:
            source: From which.
            target: To which.
            metric: As for `top_sources`.
            normalise: As for `top_sources`.

        Raises:
            KeyError: No such unit. ValueError: Nothing leads from one to the other; or as for `top_sources`.

        Example:
            >>> attributions.between("embed:17", "0.attn.q:3").value  # doctest: +SKIP
            0.0031
        """
        return queries.between(self, source, target, metric, normalise)

    def block(
        self, target_site: str, source_site: str, *, metric: Metric = "attr", normalise: Normalise = "token"
    ) -> Block:
        """All attributions from one site to another, with the ids of rows and columns.

        Args:
            target_site: Of the rows.
            source_site: Of the columns.
            metric: As for `top_sources`.
            normalise: As for `top_sources`.

        Raises:
            ValueError: No such site, nothing leads from one to the other, or as for `top_sources`.

        Example:
            >>> attributions.block("0.attn.o", "0.attn.v").values.shape  # doctest: +SKIP
            torch.Size([24, 24])
        """
        return sites_of.block(self, (target_site, source_site), metric, normalise)

    def layer_matrix(
        self, *, metric: Metric = "attr", how: How = "sum_abs", normalise: Normalise = "token"
    ) -> SiteMatrix:
        """One number for every pair of sites.

        Args:
            metric: As for `top_sources`.
            how: "sum_abs", "rms" or "sum" over the pairs of their units.
            normalise: As for `top_sources`.

        Raises:
            ValueError: Another `how`, or as for `top_sources`.

        Example:
            >>> attributions.layer_matrix()["0.attn.o", "0.attn.v"]  # doctest: +SKIP
            0.82
        """
        return sites_of.layer_matrix(self, metric, how, normalise)

    def components(self, site: str) -> Units:
        """The stored units of a site with their raw quantities: importance, how often they fired, Σ y².

        Args:
            site: Of targets, of sources, or of both.

        Raises:
            ValueError: No such site.

        Example:
            >>> attributions.components("0.attn.q").as_source["importance"]  # doctest: +SKIP
        """
        return sites_of.units(self, site)

    def has_source(self, key: str | Node) -> bool:
        """Whether a unit is stored as a source. ValueError: no key, or one with a position."""
        return queries.has(self, key, "source")

    def has_target(self, key: str | Node) -> bool:
        """Whether a unit is stored as a target, or is a token made of the stream. ValueError: as for `has_source`."""
        return queries.has(self, key, "target")

    def diff(self, other: Opened, *, metric: Metric = "attr", normalise: Normalise = "token") -> Differences:
        """What is different in another run or checkpoint of the same components: other − this.

        Args:
            other: The other one.
            metric: As for `top_sources`.
            normalise: As for `top_sources`.

        Raises:
            ValueError: Nothing in common, or as for `top_sources`.

        Example:
            >>> attributions.diff(later).top(5, by="z")  # doctest: +SKIP
        """
        return Differences(self, other, metric, normalise)

    def stability(self, k: int = 10, *, metric: Metric = "attr") -> Stability:
        """How alike the two halves of the windows rank the sources of each target.

        Args:
            k: Sources of each target.
            metric: As for `top_sources`.

        Raises:
            ValueError: Halves that were not kept, fewer than two windows, or k below 1.

        Example:
            >>> attributions.stability().overlap  # doctest: +SKIP
            0.93
        """
        return stability(self, k, metric)


def _result_of(path: str | Path) -> Path:
    """The store that a path or the id of a run means."""
    found = Path(path)
    if not found.exists():
        try:
            found = find_run(parse_run_id(str(path)))
        except ValueError as error:
            raise FileFormatError(f"{path} does not exist, and as a run: {error}") from error
    if found.is_file():
        raise FileFormatError(f"{found} is a file, not a store. Import what spd wrote: whence.import_spd(path, out).")
    return find_result(found)
