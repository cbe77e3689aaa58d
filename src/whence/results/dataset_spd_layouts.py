"""The three layouts in which spd saved dataset attributions, read into blocks under our names.

A block is a view of what was in the file: a flat matrix is cut at its layers, and its blocks of zeros, which are pairs
without a connection, are left out. Cost: one look at each number of a flat matrix. It changes no number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_axes import METRICS, STREAM
from whence.results.dataset_spd_names import sites

Pair = tuple[str, str]  # target site, source site


@dataclass(frozen=True, eq=False)
class Found:
    """What a file holds.

    Args:
        layout: "nested", "flat" or "sums".
        order: Our sites, in the order of the model.
        blocks: By pair and metric, [row of the target, column of the source].
        ids: Units of the sites that do not have them all.
        of_targets: Quantities of target sites.
        of_sources: Quantities of source sites.
        extra: Other tensors.
    """

    layout: str
    order: tuple[str, ...]
    blocks: dict[Pair, dict[str, Float[Tensor, "row column"]]]
    ids: dict[str, Int[Tensor, " line"]] = field(default_factory=dict[str, Tensor])
    of_targets: dict[str, dict[str, Float[Tensor, " line"]]] = field(default_factory=dict[str, dict[str, Tensor]])
    of_sources: dict[str, dict[str, Float[Tensor, " line"]]] = field(default_factory=dict[str, dict[str, Tensor]])
    extra: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


def found_in(data: Any) -> Found:
    """What a file holds.

    Args:
        data: The content of the file, plain.

    Raises:
        ValueError: It has none of the layouts. (Where it has, parts that do not fit raise what they raise.)
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"it holds a {type(data).__name__}, and no fields by name")
    if "regular_attr" in data:
        return _sums(data)
    if "source_to_component" in data:
        return _flat(data)
    if all(metric in data for metric in METRICS):
        return _nested(data)
    raise ValueError(f"its fields {sorted(map(str, data))[:12]} are none of the three layouts that are known")


def _nested(data: Mapping[str, Any]) -> Found:
    names = sites({name for target, of in data["attr"].items() for name in (target, *of)})
    blocks: dict[Pair, dict[str, Tensor]] = {}
    for metric in METRICS:
        for target, of in data[metric].items():
            for source, block in of.items():
                blocks.setdefault((names[target], names[source]), {})[metric] = block
    for pair, arrays in blocks.items():
        if len(arrays) != len(METRICS):
            raise ValueError(f"{pair[1]} -> {pair[0]} has {', '.join(arrays)} only")
    return Found("nested", tuple(names.values()), blocks)


def _flat(data: Mapping[str, Any]) -> Found:
    keys = [(layer, int(unit)) for layer, _, unit in (key.rpartition(":") for key in data["component_layer_keys"])]
    vocab, inner, outer = int(data["vocab_size"]), data["source_to_component"], data["source_to_out_residual"]
    grouped = [(layer, [unit for _, unit in of]) for layer, of in groupby(keys, lambda key: key[0])]
    names = sites(["wte", "output", *(layer for layer, _ in grouped)])
    if inner.shape != (vocab + len(keys), len(keys)) or len(outer) != len(inner):
        raise ValueError(f"matrices of {tuple(inner.shape)} and {tuple(outer.shape)} for {len(keys)} units")
    columns, end = dict[str, slice](), 0
    for layer, units in grouped:
        columns[names[layer]], end = slice(end, end + len(units)), end + len(units)
    rows = {"embed": slice(0, vocab)} | {site: slice(vocab + at.start, vocab + at.stop) for site, at in columns.items()}
    blocks = {(STREAM, source): {"attr": outer[at].T} for source, at in rows.items()}
    blocks |= {(t, source): {"attr": inner[at, to].T} for t, to in columns.items() for source, at in rows.items()}
    kept = {pair: arrays for pair, arrays in blocks.items() if bool(arrays["attr"].any())}
    ids = {names[layer]: torch.tensor(units) for layer, units in grouped}
    return Found("flat", tuple(names.values()), kept, ids)


def _sums(data: Mapping[str, Any]) -> Found:
    given = {*data["regular_attr"], *data["embed_attr"], *data["unembed_attr"], *data["ci_sum"], "embed", "output"}
    names = sites(given | {source for of in data["regular_attr"].values() for source in of})
    blocks: dict[Pair, dict[str, Tensor]] = {(STREAM, "embed"): {"attr": data["embed_unembed_attr"]}}
    for source, block in data["unembed_attr"].items():
        blocks[STREAM, names[source]] = {"attr": block}
    for metric in ("attr", "attr_abs"):
        for target, block in data[f"embed_{metric}"].items():
            blocks.setdefault((names[target], "embed"), {})[metric] = block
        for target, of in data[f"regular_{metric}"].items():
            for source, block in of.items():
                blocks.setdefault((names[target], names[source]), {})[metric] = block
    importance = {names[site]: {"importance": total.double()} for site, total in data["ci_sum"].items()}
    return Found(
        "sums",
        tuple(names.values()),
        blocks,
        of_targets={names[site]: {"square": total.double()} for site, total in data["component_act_sq_sum"].items()},
        of_sources=importance | {"embed": {"importance": data["embed_token_count"].double()}},
        extra={"unembedding": data["w_unembed"].T, "logit_square": data["logit_sq_sum"]},
    )
