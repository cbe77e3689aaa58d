"""What every picture of a graph says in words, whatever draws it: names of nodes, the title and the lines below it."""

from whence.results.graph_scores import ScoredGraph
from whence.results.keys import Node
from whence.results.sheet import quoted

_PROMPT_WIDTH = 90


def title(graph: ScoredGraph) -> str:
    """The prompt, and what it led to.

    Args:
        graph: The graph.

    Example:
        >>> title(graph)  # doctest: +SKIP
        'The capital of Texas is → Austin (0.63), Dallas (0.11)'
    """
    pairs = zip(graph.logit_targets, graph.logit_probabilities.tolist(), strict=True)
    outputs = [f"{quoted(target.token_str.strip() or target.token_str)} ({weight:.2f})" for target, weight in pairs]
    more = f" and {len(outputs) - 3} more" if len(outputs) > 3 else ""
    text = repr(graph.prompt.strip())[1:-1]
    prompt = text if len(text) <= _PROMPT_WIDTH else f"…{text[-_PROMPT_WIDTH:]}"
    return f"{prompt} → {', '.join(outputs[:3])}{more}"


def scores(graph: ScoredGraph) -> str:
    """The two scores in one line."""
    return f"replacement {graph.replacement_score():.2f}, completeness {graph.completeness_score():.2f}"


def size(graph: ScoredGraph) -> str:
    """How many nodes and edges there are, and of how many nodes."""
    return f"{nodes(graph)}, {graph.weights.nnz:,} edges"


def nodes(graph: ScoredGraph) -> str:
    """How many nodes there are, and of how many."""
    full = graph.provenance.get("pruned", {}).get("of_nodes")
    return f"{len(graph.nodes):,} nodes{f' of {full:,}' if full else ''}"


def label(graph: ScoredGraph, node: Node) -> str:
    """A node in words: its token or target where it has one, else its key without the position."""
    if node.name == "output":
        found = [target.token_str for target in graph.logit_targets if target.vocab_idx == node.index]
        return quoted(found[0]) if found else str(node)
    if node.name in ("embed", "pos_embed") and node.position is not None and node.position < len(graph.token_texts):
        text = quoted(graph.token_texts[node.position])
        return text if node.name == "embed" else f"position of {text}"
    return str(node).partition("@")[0]
