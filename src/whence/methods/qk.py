"""QK attribution: why did this head look there? One attention score by pairs of features.

    score(q, k) = scaling (Q N(x_q)) . (K N(x_k)) = sum_ij scaling q_i . k_j

x_q and x_k are sums over everything that wrote to them through the frozen model (features, errors, embeddings,
positions, constants), so the score is a sum over pairs, checked against the model's own. Rotations, norms of queries
and keys (held at their scale) and softcaps are the model's own; the score is the one before softcap, mask and softmax.
Source: Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions".

Cost: three forward passes, two rows of an attribution graph per channel of the head, and one product of the pairs in
blocks for the check. Knows nothing of the other keys that the softmax weighs this one against.
"""

from typing import Any

import torch

from whence.engine.linearize import linearize
from whence.engine.prompts import bos_positions, one_prompt, units_of
from whence.engine.qk import score_parts
from whence.engine.source_nodes import source_table
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.methods.provenance import provenance
from whence.model.layout import Writer
from whence.model.model import Model
from whence.results.keys import Node
from whence.results.qk import QKAttribution


def qk_attribution(model: Model, dictionary: Any, prompt: Any, score: Node | str) -> QKAttribution:
    """What made one attention score, by pairs of sources.

    Args:
        model: the model.
        dictionary: transcoders or a cross-layer transcoder (`whence.load_dictionary`); None or `whence.Neurons()` for
            the model's own MLP neurons.
        prompt: a string, a list of token ids, or a 1-D or (1, n) tensor of them.
        score: a head's score at two positions, query first: "2.attn.head:1.qk@7~3".

    Returns:
        Vectors of d_head for the sources of each side; pairs are their products.

    Raises:
        ValueError: no such score: another kind of key, a head or position that is not there, a key that is not seen.
        UnsupportedModelError: a model whose scores are no products of affine queries and keys.
        LedgerError: sources or pairs that do not sum to the model's own query, key or score.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> transcoders = whence.load_dictionary(dictionary_path("transcoders"))
        >>> found = whence.qk_attribution(model, transcoders, PROMPT, "2.attn.head:1.qk@7~3")
        >>> abs(found.remainder) < 1e-5 * found.magnitude
        True
    """
    node = Node.parse(score) if isinstance(score, str) else score
    writer, head, query, key = _meant(model, node)
    batch, last = one_prompt(model, prompt, query)
    units = units_of(model, dictionary)
    bos = bos_positions(model, batch, None)
    linear = linearize(model, batch, units, position=last, bos=bos)
    parts = score_parts(model, linear, writer, head, query, key)
    nodes = source_table(linear)
    found = QKAttribution(
        head=node,
        query_nodes=nodes.select(parts.query.number),
        key_nodes=nodes.select(parts.key.number),
        query_vectors=(parts.whole.scaling * parts.query.vectors).cpu(),
        key_vectors=parts.key.vectors.cpu(),
        score=parts.whole.score,
        weight=parts.whole.weight,
        provenance=provenance(
            model,
            "qk_attribution",
            dictionary=units.describe(),
            frozen={"norms": True, "attention": True, "mlps": "replaced", "query and key norms": True},
            bos=list(bos),
        ),
    )
    gap, size = (torch.tensor([number], dtype=torch.float64) for number in (abs(found.remainder), found.magnitude))
    refuse_gap(gap, size, tolerance_of(model.dtype))
    return found


def _meant(model: Model, node: Node) -> tuple[Writer, int, int, int]:
    """The attention, head, query and key of a score's key."""
    if not isinstance(model, Model):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not check types
        raise TypeError(f"model is {type(model).__name__}; wrap it first: whence.Model(model, tokenizer)")
    wrong = node.name != "attn.head" or node.end != "qk"
    if wrong or node.position is None or node.source is None or not isinstance(node.index, int):
        raise ValueError(f"{str(node)!r} is no attention score; write layer, head, query~key: '2.attn.head:1.qk@7~3'")
    if node.source > node.position:
        raise ValueError(f"'{node}' looks at a later position; the query comes first: @query~key")
    writer = next((writer for writer in model.layout.attention if writer.layer == node.layer), None)
    if writer is None:
        layers = ", ".join(str(writer.layer) for writer in model.layout.attention) or "no layer"
        raise ValueError(f"'{node}': layer {node.layer} has no attention; it is in {layers}")
    if writer.heads is not None and node.index >= writer.heads:
        raise ValueError(f"'{node}': layer {node.layer} has {writer.heads} heads, counted from 0")
    return writer, node.index, node.position, node.source
