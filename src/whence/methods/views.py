"""Other ways to read a direct-attribution ledger: without constants, a row per layer, running sums; all add up."""

from dataclasses import replace

import torch
from torch import Tensor

from whence.model.layout import Layout
from whence.results.keys import Node
from whence.results.scores import Keys, Scores


def without_constants(scores: Scores) -> Scores:
    """The rows that are no biases, explaining the number less all biases."""
    runs = scores.keys.runs  # a run of units is told by its template, so no node is made per neuron
    kept = [run for run in runs if not run.node.name.endswith(".bias")]
    constant = torch.tensor([run.node.name.endswith(".bias") for run in runs for _ in range(len(run))])
    dropped = scores.values[constant].sum(0, dtype=torch.float64)
    target = (scores.target.double() - dropped).to(scores.target.dtype)
    return replace(scores, keys=Keys(kept), values=scores.values[~constant], target=target)


def by_layer(scores: Scores) -> Scores:
    """One row for everything a block writes, its biases included; embeddings and constants as they are."""
    return _grouped(scores, [key if _stands_alone(key) else Node("block", key.layer) for key in scores.keys])


def _stands_alone(key: Node) -> bool:
    """Whether a row belongs to no block: embeddings, and constants of the end or of the unit being explained."""
    return key.layer is None or key.name.startswith("resid")


def accumulate(scores: Scores, layout: Layout, *, per_layer: bool) -> Scores:
    """Running sums: the row of a site is what everything up to there adds, the last row is the number itself.

    Args:
        scores: by component.
        layout: tells which writers are a block's last.
        per_layer: one row a layer (`resid_post`); otherwise also after attention (`resid_mid`), where blocks are
            sequential.
    """
    stages = {writer.key: writer.stage for writer in layout.writers}
    last = {layer: max(writer.stage for writer in layout.of(layer)) for layer in range(len(layout.blocks))}

    def site_after(key: Node) -> Node:
        if key.layer is None or _stands_alone(key):
            return key if key.name not in ("embed", "pos_embed") else Node("resid_pre", 0)
        final = per_layer or stages[str(key).removesuffix(".bias")] == last[key.layer]
        return Node("resid_post" if final else "resid_mid", key.layer)

    grouped = _grouped(scores, [site_after(key) for key in scores.keys])
    return replace(grouped, values=grouped.values.double().cumsum(0).to(scores.values.dtype), running=True)


def _grouped(scores: Scores, groups: list[Node]) -> Scores:
    """Rows of the same group summed, groups in the order of their first row."""
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    index = torch.tensor([order[group] for group in groups])
    values = torch.zeros(len(order), *scores.values.shape[1:], dtype=torch.float64)
    summed: Tensor = values.index_add_(0, index, scores.values.double())
    return replace(scores, keys=Keys.of(order), values=summed.to(scores.values.dtype))
