"""Which components feed which, on average over a dataset.

For every target unit t and source unit s of a model cut at its components, with

    A[q, p] = c_t[q] dy_t[q]/da_s[p] a_s[p] c_s[p]
    attr = Σ A        attr_abs = Σ sign(y_t[q]) A        mean_squared_attr = Σ A²

over all positions p ≤ q of all rows: raw sums, divided by what a query asks for. `attr_abs` is the attribution to |y|,
and signed. With norms frozen and sources unweighted, the sources of whatever reads the stream sum to what it reads; so
do values for an attention's output map (the pattern held), and `up` for an MLP's last map (its gate held). Edges from
queries, keys and gates are local derivatives and belong to no sum; results say which is which.

Cost: closed forms (`whence.engine.dataset`), a forward pass a batch, and float64 blocks in memory: 72 bytes a number
with all metrics and standard errors, and 12 for the window's own sums. What it does not know: paths through two
components; whether an edge matters to the model, which only an intervention shows.

Source: the statistics are those of goodfire-ai/spd's pull request 413, with squares exact by pair of positions.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from whence.engine.dataset.named import sorted_out
from whence.engine.dataset.weighing import Weighting
from whence.errors import FileFormatError
from whence.methods.dataset_plan import RESULT, SHARDS, DatasetPlan, make_plan, read_plan
from whence.methods.dataset_settings import DatasetSettings, Norms
from whence.methods.dataset_shard import run_shard
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS
from whence.results.dataset_merge import merge_stores
from whence.results.dataset_store import open_store


def dataset_attributions(
    model: Model,
    components: Any,
    data: Any,
    *,
    out: str | Path,
    metrics: Sequence[str] = METRICS,
    norms: Norms = "frozen",
    weighting: Weighting = "none",
    min_importance: float = 0.0,
    batches: int | None = None,
    batch_size: int = 32,
    sequence_length: int = 512,
    seed: int | None = 0,
    output_tokens: Iterable[int | str] | None = None,
    compat: Literal["spd-413"] | None = None,
    pack: bool = True,
    text_field: str = "text",
    fold: int = 8,
    standard_errors: bool = True,
    stop_at: float | None = None,
    unembedding: bool = True,
    progress: Progress = silent,
) -> DatasetAttributions:
    """Attributions between components, summed over a dataset, in this process.

    For several processes or machines use `whence dataset run`, which does the same shard by shard.

    Args:
        model: the model.
        components: parameter components, dictionaries, names of the model's own units ("attn.head", "mlp.neuron",
            "attn", "mlp"), `HeadReads`; one or several. What is not named is live: edges run through it.
        data: text files, JSON lines, token arrays, an iterable of texts, a Hugging Face dataset (`prepare`).
        out: folder of runs; this one goes into a new folder below it.
        metrics: which of attr, attr_abs, mean_squared_attr; one or several.
        norms: "frozen" or "live".
        weighting: which sides count by their importance.
        min_importance: importances up to this count as 0 on weighted sides; from 0, below 1.
        batches: how many; None: all data.
        batch_size: rows in a batch.
        sequence_length: tokens in a row.
        seed: of the order of rows.
        output_tokens: token or tokens whose logits are targets of every metric; of others the signed metric is known.
        compat: "spd-413" for comparison with that code.
        pack: put documents one after the other into rows; else a row is a document.
        text_field: of records, the field with the text.
        fold: batches in a window, after which sums go to float64.
        standard_errors: keep what standard errors and split-half stability need: 24 bytes a number and metric, not 8.
        stop_at: stop once the halves agree on this share of the strongest sources; asked every four windows.
        unembedding: keep the unembedding beside the result.
        progress: called with (stage, done, total).

    Returns:
        The result, opened from `out`.

    Raises:
        ValueError: arguments that do not fit one another, or components that do not fit the model.
        UnsupportedModelError: a model whose gradients its family's entry does not explain.
        LedgerError: rows that do not add up.

    Example:
        >>> import whence, whence.demo, tempfile
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> saes = whence.load_dictionary(whence.demo.dictionary_path("transcoders"))
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = whence.dataset_attributions(
        ...         model, [saes, "attn"], ["The actor sings well."], out=out, sequence_length=16
        ...     )
        ...     found.tokens
        7
    """
    given = sorted_out(components)
    settings = DatasetSettings(
        metrics=(metrics,) if isinstance(metrics, str) else tuple(metrics),
        norms=norms,
        weighting=weighting,
        min_importance=min_importance,
        batches=batches,
        batch_size=batch_size,
        sequence_length=sequence_length,
        seed=seed,
        output_tokens=token_ids(model, output_tokens),
        compat=compat,
        pack=pack,
        fold=fold,
        standard_errors=standard_errors,
        stop_at=stop_at,
    )
    plan = make_plan(
        model, given, data, out, settings, text_field=text_field, unembedding=unembedding, progress=progress
    )
    run_shard(plan, model, given, progress=progress)
    return DatasetAttributions.load(merge_run(plan.folder, progress=progress))


def token_ids(model: Model, tokens: Iterable[int | str] | None) -> tuple[int, ...]:
    """Ids of tokens that are given as ids or as text, ascending; a text by itself is one token."""
    given = (tokens,) if isinstance(tokens, str) else tokens or ()
    return tuple(sorted({model.token_id(token) for token in given}))


def merge_run(
    folder: str | Path,
    *,
    allow_missing: bool = False,
    embed_top: int | None = None,
    progress: Progress = silent,
) -> Path:
    """The result of a run: its shards added up, block by block; neither model nor components are needed.

    Args:
        folder: the sub-run.
        allow_missing: go on without what is missing, and say so in the result.
        embed_top: keep only so many source tokens of each target, and the totals of all.
        progress: called with ("merge", done, total).

    Raises:
        FileFormatError: shards that are missing, repeated, damaged, or of another run.
    """
    plan = read_plan(folder)
    shards = sorted(one for one in (plan.folder / SHARDS).glob("*-of-*") if one.is_dir())
    expected = set(range(plan.windows)) - _skipped(plan, shards)
    return merge_stores(
        shards,
        plan.folder / RESULT,
        expected=sorted(expected),
        allow_missing=allow_missing,
        embed_top=embed_top,
        extra=plan.unembedding(),
        progress=progress,
    )


def _skipped(plan: DatasetPlan, shards: Sequence[Path]) -> set[int]:
    """Windows of shards that stopped early, on purpose."""
    if plan.settings.stop_at is None:
        return set()
    found: set[int] = set()
    for folder in shards:
        number, _, count = folder.name.partition("-of-")
        try:
            header = open_store(folder).header
        except FileFormatError:  # the merge says what is wrong with it
            continue
        if header.provenance.get("stopped_early"):
            found |= set(plan.of(int(number), int(count))) - set(header.windows)
    return found
