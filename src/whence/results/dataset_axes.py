"""What the blocks of dataset attributions are made of: sites, what their rows and columns are, and what was counted.

A block of raw sums has one row for each unit of a target site and one column for each of a source site. Sites are the
text of a key without its index: "0.attn.q", "embed", "output", "2.mlp.feature", "0.attn.v.delta", "bias". The site
"output.stream" is no key: its rows are the coordinates of the stream before the unembedding, from which a token's row
is made by its unembedding row. Knows nothing of files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

METRICS = ("attr", "attr_abs", "mean_squared_attr")
SIGNED = ("attr", "attr_abs")  # metrics that can be negative
STREAM = "output.stream"  # before the unembedding, by coordinate


@dataclass(frozen=True, eq=False)
class Axis:
    """The rows or the columns that a site has in its blocks.

    Args:
        site: Text of its keys without an index.
        ids: Which unit each line is, ascending: component, feature, head, token, coordinate; [0] where a site is one.
        size: Units that the site has, stored or not.
        quantities: Raw sums over all tokens, a number a line. Of targets: `importance` Σ c, `value` Σ c y,
            `absolute` Σ c |y|, `square` Σ y². Of sources: `importance` Σ c (of tokens: how often each occurs),
            `fired` how often c > 0.
    """

    site: str
    ids: Int[Tensor, " line"]
    size: int
    quantities: Mapping[str, Float[Tensor, " line"]] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, eq=False)
class Header:
    """Everything of a set of blocks but the blocks.

    Args:
        tokens: Tokens counted.
        windows: The windows of batches that are in the sums, ascending: the unit of work, of resuming, and of
            standard errors.
        targets: By site, in the order of the model.
        sources: By site, in the order of the model.
        pairs: (target site, source site) -> whether the sources of this block belong to a sum that equals the target.
        statistics: Names of the arrays that every block has, unless `only` says otherwise: a metric's raw sum `attr`;
            over the windows with odd numbers alone `attr.half`; Σ over windows of (its sum)² / (its tokens)
            `attr.square`.
        only: Pairs that have fewer statistics than the others.
        settings: What must be equal for two sets to be added: model, components, data, options; in JSON's types.
        provenance: What else is known: versions, dates, timings, checks; in JSON's types.
    """

    tokens: int
    windows: tuple[int, ...]
    targets: Mapping[str, Axis]
    sources: Mapping[str, Axis]
    pairs: Mapping[tuple[str, str], bool]
    statistics: tuple[str, ...]
    only: Mapping[tuple[str, str], tuple[str, ...]]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def of(self, pair: tuple[str, str]) -> tuple[str, ...]:
        """The statistics that a pair has."""
        return self.only.get(pair, self.statistics)
