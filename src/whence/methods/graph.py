"""Attribution graphs: through which features, step by step, did this prompt lead to this token?

Every MLP is replaced by what a dictionary's features write and an error; attention patterns and norm scales are held as
they were. Then each feature's pre-activation, and each logit, is a sum over what wrote to the stream below it:

    pre_t - b_t = sum_s weights[t, s],        weights[t, s] = u_t^T J v_s

The sum is checked for every row against the model's own forward pass (the certificate). Edges are direct effects under
the freezes; how far the live model follows them is for `whence.verify` to measure.
Source: Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models".

Cost: one forward pass and about 4 (p + 1) d_model^2 multiply-adds per row and attention below it. Knows nothing of
attention patterns as things to explain (`whence.qk_attribution` does), nor of SAEs, which do not stand for an MLP.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.engine.budget import refuse_hopeless
from whence.engine.graph_run import GraphRequest, GraphRun
from whence.engine.linearize import Linearized, linearize
from whence.engine.logit_rows import explained
from whence.engine.memory import bytes_of
from whence.engine.prompts import NEURONS, bos_positions, check_choice, one_prompt, units_of
from whence.engine.tolerance import tolerance_of
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.model.offload import Offload, offloaded
from whence.progress import Progress, silent
from whence.results.graph import Graph
from whence.results.keys import Node

Order = Literal["influence", "exact"]


def attribution_graph(
    model: Model,
    dictionary: Any,
    prompt: Any,
    targets: Any = None,
    *,
    max_nodes: int | None = None,
    order: Order = "influence",
    position: int = -1,
    memory: str | int | None = None,
    offload: Offload | None = None,
    parity: Literal["circuit-tracer"] | None = None,
    nodes: Iterable[Node | str] | None = None,
    shard: tuple[int, int] | None = None,
    max_n_logits: int = 10,
    desired_logit_prob: float = 0.95,
    progress: Progress = silent,
) -> Graph:
    """The graph of features that led from a prompt to its next token.

    Args:
        model: the model.
        dictionary: transcoders or a cross-layer transcoder (`whence.load_dictionary`); None or `whence.Neurons()` for
            the model's own MLP neurons.
        prompt: a string, a list of token ids, or a 1-D or (1, n) tensor of them.
        targets: what to explain: None for the most likely tokens, strings of one token each, a tensor of ids, or
            directions (`whence.CustomTarget`), as `whence.AttributionTargets` takes them; or a
            `whence.logit_difference` of two tokens.
        max_nodes: how many features get rows of their own; the others are summed in the node `rest`. None: all, or
            2,048 where the units are neurons.
        order: which ones: "influence" expands the most influential first, as circuit-tracer does; "exact" takes those
            with the largest total effect on the targets.
        position: where the logits are; negative ones count from the end.
        memory: a hard budget for everything the job allocates, e.g. "8GB"; rows beyond it go to disk.
        offload: where the model waits while rows are solved: "cpu" or "disk".
        parity: "circuit-tracer" reproduces that tool's conventions: logits less their mean over the vocabulary, no
            features or errors at the first position, no bias nodes.
        nodes: the features to give rows to, instead of an order.
        shard: (i, n) solves the i-th of n parts of the rows; `Graph.merge` puts parts together. Needs a fixed list of
            nodes: all of them, `nodes`, or order="exact".
        max_n_logits: with targets=None, take at most this many tokens.
        desired_logit_prob: with targets=None, take the fewest tokens that together have this probability.
        progress: told of rows solved.

    Returns:
        The graph; `graph.certificate` holds the gap of every row.

    Raises:
        ValueError, TypeError: an argument that cannot be meant.
        UnsupportedModelError: a model whose attention cannot be held.
        LedgerError: a row that does not sum to the number it explains.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> transcoders = whence.load_dictionary(dictionary_path("transcoders"))
        >>> graph = whence.attribution_graph(model, transcoders, PROMPT, [" Austin"])
        >>> bool(graph.certificate.worst < 1e-5)
        True
    """
    batch, last = one_prompt(model, prompt, position)
    units, budget = units_of(model, dictionary), bytes_of(memory)
    if max_nodes is None and nodes is None and isinstance(units, Neurons):
        max_nodes = NEURONS
    check_choice(order, max_nodes)
    _check(parity, nodes, shard, offload, order, max_nodes)
    refuse_hopeless(model, last + 1, budget)
    bos = bos_positions(model, batch, parity)
    linear = linearize(model, batch, units, position=last, bos=bos, bos_is_constant=parity is not None)
    logits = explained(model, linear, targets, max_n_logits, desired_logit_prob, demeaned=parity is not None)
    request = GraphRequest(
        tolerance=tolerance_of(model.dtype),
        max_nodes=max_nodes,
        order=order,
        given=None if nodes is None else _numbers(linear, nodes),
        shard=shard,
        memory=budget,
        parity=parity is not None,
    )
    options = {
        "dictionary": units.describe(),
        "convention": parity or "whence",
        "position": last,
        "order": order if nodes is None else "given",
        "max_nodes": max_nodes,
        "shard": None if shard is None else list(shard),
        "frozen": {"norms": True, "attention": True, "mlps": "replaced"},
        "bos": list(linear.bos),
        "n_layers": model.n_layers,
    }
    ids = batch.ids[0, : last + 1].cpu()
    texts = tuple(model.token_text(token) for token in ids.tolist())
    origin = provenance(model, "attribution_graph", **options)  # names the device, which offloading changes
    linear.forget_run()
    with offloaded(model.layout, offload):
        return GraphRun(linear, logits, request, progress).graph(
            prompt=prompt if isinstance(prompt, str) and last + 1 == batch.ids.shape[1] else _text(model, texts),
            input_tokens=ids,
            token_texts=texts,
            provenance=origin,
        )


def attribution_graphs(
    model: Model,
    dictionary: Any,
    prompts: Iterable[Any],
    targets: Any = None,
    *,
    on_error: Callable[[int, Exception], None] | None = None,
    **options: Any,
) -> Iterator[tuple[int, Graph]]:
    """Graphs of many prompts, one at a time as they are done, with each prompt's number.

    Args:
        model: the model.
        dictionary: as for `attribution_graph`.
        prompts: any number of them; taken one by one.
        targets: as for `attribution_graph`, for every prompt.
        on_error: told of a prompt that failed and why; the others go on. None raises the first error once the other
            prompts are done.
        options: as for `attribution_graph`.

    Raises:
        Exception: the first prompt's error, at the end, unless `on_error` is given.

    Example:
        >>> for number, graph in whence.attribution_graphs(model, transcoders, prompts):  # doctest: +SKIP
        ...     graph.save(f"runs/{number}")
    """
    units = units_of(model, dictionary)  # now, not when the first graph is taken
    return _one_by_one(model, units, prompts, targets, on_error, options)


def _one_by_one(
    model: Model,
    units: DictionarySet | Neurons,
    prompts: Iterable[Any],
    targets: Any,
    on_error: Callable[[int, Exception], None] | None,
    options: dict[str, Any],
) -> Iterator[tuple[int, Graph]]:
    first: Exception | None = None
    for number, prompt in enumerate(prompts):
        try:
            yield number, attribution_graph(model, units, prompt, targets, **options)
        except Exception as error:  # noqa: BLE001 - one prompt's error must not lose the rest; it is reported or raised
            if on_error is not None:
                on_error(number, error)
            elif first is None:
                error.add_note(f"in prompt {number}")
                first = error
    if first is not None:
        raise first


def _check(parity: str | None, nodes: Any, shard: Any, offload: Any, order: str, max_nodes: int | None) -> None:
    if parity not in (None, "circuit-tracer"):
        raise ValueError(f"parity={parity!r}; it is 'circuit-tracer' or None")
    if offload not in (None, "cpu", "disk"):
        raise ValueError(f"offload={offload!r}; it is 'cpu', 'disk' or None")
    if isinstance(nodes, str | Node):
        raise TypeError(f"nodes={nodes!r}; it is a list of keys, [{str(nodes)!r}]")
    if nodes is not None and max_nodes is not None:
        raise ValueError("nodes= lists the features that get rows; leave max_nodes out")
    if shard is None:
        return
    if not isinstance(shard, tuple | list) or len(shard) != 2 or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard={shard!r}; it is (i, n) with 0 <= i < n")
    if order == "influence" and max_nodes is not None:
        raise ValueError(
            f"shard= splits a fixed list of nodes, and the {max_nodes} here would be found on the way; choose them "
            "with order='exact' or nodes="
        )


def _numbers(linear: Linearized, nodes: Iterable[Node | str]) -> Int[Tensor, " node"]:
    """Features by source number, ascending.

    Raises:
        ValueError: a key of something that is not an active feature here.
    """
    wanted = [Node.parse(node) if isinstance(node, str) else node for node in nodes]
    numbers: list[int] = []
    for node in wanted:
        found = [
            group.offset + int(at)
            for number, group in enumerate(linear.stream.groups)
            if number in linear.readers and (group.name, group.layer) == (node.name, node.layer)
            for at in torch.where((group.index == node.index) & (group.position() == node.position))[0]
        ]
        if not found:
            raise ValueError(
                f"{node} is not an active feature of this prompt, and only features have rows; keys look like "
                "'2.mlp.feature:17@5'"
            )
        numbers += found
    return torch.tensor(sorted(set(numbers)), dtype=torch.long)


def _text(model: Model, texts: Sequence[str]) -> str:
    """Tokens as one line; ids, where there is no tokenizer, with spaces between them."""
    return ("" if model.tokenizer is not None else " ").join(texts)
