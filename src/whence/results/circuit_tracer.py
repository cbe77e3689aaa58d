"""Graphs that circuit-tracer saved as `.pt`, read without running anything that is in them.

The file is a zip of one pickle and raw storages. A pickle may name any function to call; this reader knows a short list
of names, each standing for plain data, and refuses a file that names another. Its nodes stand in the order

    selected features | errors, layer by layer | tokens | logits

Cost: the dense matrix once. It knows nothing of the model: how many layers there are follows from the matrix.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.errors import FileFormatError
from whence.results.graph_data import AnyGraph
from whence.results.keys import LogitTarget
from whence.results.nodes import NodeTable
from whence.results.torch_zip import Record, read_zip
from whence.results.weights import Weights

_NAMES = ("mlp.feature", "mlp.error", "embed", "output")


def read(kind: type[AnyGraph], path: str | Path, tokenizer: Any = None) -> AnyGraph:
    """The graph in a file of circuit-tracer's.

    Args:
        kind: The class of the graph.
        path: The file.
        tokenizer: Gives the tokens their texts, and the targets of old files theirs.

    Raises:
        FileFormatError: No such file, none of circuit-tracer's, or one that asks for code to be run.

    Example:
        >>> read(Graph, "austin.pt").provenance["convention"]  # doctest: +SKIP
        'circuit-tracer'
    """
    try:
        content = read_zip(Path(path))
        return _graph(kind, content, tokenizer, Path(path).name)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a graph that circuit-tracer saved: {error}.") from error


def _graph(kind: type[AnyGraph], content: Any, tokenizer: Any, name: str) -> AnyGraph:
    matrix: Tensor = content["adjacency_matrix"]
    tokens = content["input_tokens"].reshape(-1).long()
    active, selected = content["active_features"].long(), content["selected_features"].long()
    config = content.get("cfg")
    targets = _targets(content, tokenizer)
    rest = len(matrix) - len(selected) - len(tokens) - len(targets)
    if matrix.shape[0] != matrix.shape[1] or not len(tokens) or rest < 0 or rest % len(tokens):
        raise ValueError(
            f"a matrix of shape {tuple(matrix.shape)} does not fit {len(selected)} features, {len(tokens)} tokens and "
            f"{len(targets)} targets"
        )
    layers = rest // len(tokens)
    size = content.get("vocab_size") or _field(config, "d_vocab")
    if size is None:
        raise ValueError("it says nowhere how large the vocabulary is")
    return kind(
        nodes=_nodes(active[selected], layers, tokens, targets),
        weights=Weights.from_dense(matrix.float() if matrix.dtype == torch.float16 else matrix),
        logit_targets=targets,
        logit_probabilities=content["logit_probabilities"].float(),
        vocab_size=int(size),
        prompt=_prompt(content, tokenizer, tokens),
        input_tokens=tokens,
        token_texts=tuple(_text(tokenizer, token) for token in tokens.tolist()),
        active_features=active,
        activation_values=content["activation_values"].float(),
        selected_features=selected,
        provenance=_provenance(content, config, layers, name),
    )


def _targets(content: Any, tokenizer: Any) -> tuple[LogitTarget, ...]:
    """The targets; old files have bare ids, under either of two names."""
    given = content.get("logit_targets", content.get("logit_tokens"))
    if isinstance(given, Tensor):
        return tuple(LogitTarget("" if tokenizer is None else tokenizer.decode([i]), i) for i in given.tolist())
    return tuple(LogitTarget(str(_field(one, "token_str", 0)), int(_field(one, "vocab_idx", 1))) for one in given)


def _field(record: Any, name: str, place: int | None = None) -> Any:
    """A field of a record, by its name or, where the record has a plain list, by its place."""
    if not isinstance(record, Record):
        return None
    if name in record.fields:
        return record.fields[name]
    return None if place is None else record.values[place]


def _nodes(
    features: Int[Tensor, "selected 3"], layers: int, tokens: Int[Tensor, " pos"], targets: tuple[LogitTarget, ...]
) -> NodeTable:
    positions = torch.arange(len(tokens))
    layer, position, feature = features.T
    none = torch.full_like(tokens, -1)
    logits = torch.tensor([target.vocab_idx for target in targets], dtype=torch.int64)
    sizes = torch.tensor([len(features), layers * len(tokens), len(tokens), len(targets)])
    columns = (
        torch.arange(len(_NAMES)).repeat_interleave(sizes),
        torch.cat([layer, torch.arange(layers).repeat_interleave(len(tokens)), none, torch.full_like(logits, -1)]),
        torch.cat([feature, none.repeat(layers), tokens, logits]),
        torch.full((int(sizes.sum()),), -1),
        torch.cat([position, positions.repeat(layers), positions, torch.full_like(logits, len(tokens) - 1)]),
    )
    return NodeTable.from_columns(_NAMES, torch.stack(columns))


def _prompt(content: Any, tokenizer: Any, tokens: Int[Tensor, " pos"]) -> str:
    given = content.get("input_string")
    return given if isinstance(given, str) else "" if tokenizer is None else tokenizer.decode(tokens.tolist())


def _text(tokenizer: Any, token: int) -> str:
    return str(token) if tokenizer is None else tokenizer.decode([token])


def _provenance(content: Any, config: Any, layers: int, name: str) -> dict[str, Any]:
    scan = content.get("scan")
    return {
        "method": "attribution_graph",
        "convention": "circuit-tracer",
        "imported_from": name,
        "model": _field(config, "model_name"),
        "scan": scan if isinstance(scan, str) else None,
        "transcoders": [str(part) for part in scan] if isinstance(scan, (list, tuple)) else [],
        "n_layers": layers,
    }
