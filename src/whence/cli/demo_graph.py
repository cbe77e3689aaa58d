"""What `whence demo` ends with: the graph of the model's answer, pruned, verified and as a page."""

from pathlib import Path
from typing import TYPE_CHECKING

from whence.cli.console import print_table, say, stdout

if TYPE_CHECKING:
    from whence.model.model import Model
    from whence.results.graph import Graph
    from whence.verification.report import VerificationReport

ROWS, REMOVED, NAMED = 8, 32, 2


def show_graph(model: "Model", prompt: str, answer: str, page: Path) -> None:
    """Make the graph, show what matters of it, remove its nodes from the model, and write the page.

    Raises:
        VerificationError: the model does not do what the graph says.
    """
    from whence.components.loading import load_dictionary
    from whence.demo import dictionary_path
    from whence.methods.graph import attribution_graph
    from whence.verification.verify import verify

    say("explaining it again, through the features of the model's transcoders")
    dictionary = load_dictionary(dictionary_path("transcoders"))
    whole = attribution_graph(model, dictionary, prompt, [answer])
    graph = whole.prune()
    report = verify(whole, model, dictionary, k=REMOVED)
    report.check()
    out = stdout()
    print_table(graph.table(ROWS))
    out.print(f"\n{_how_to_read(whole)}", markup=False)
    out.print(f"{_verified(report)}\n", markup=False)
    out.print(f"Page     {graph.to_html(page)}", soft_wrap=True, markup=False)


def _how_to_read(graph: "Graph") -> str:
    return (
        f"How to read it: each of the {len(graph.selected_features)} active features is the sum of what wrote to it "
        f"from below, and so is the answer. Of what began at tokens, most came from {_tokens(graph)}."
    )


def _verified(report: "VerificationReport") -> str:
    return (
        f"Removing {len(report.nodes)} nodes from the model, one by one, changed the others as the graph says: within "
        f"{report.frozen.max_error:.0e} with attention and norms held. With both free, the rank correlation is "
        f"{report.live.spearman:.2f}."
    )


def _tokens(graph: "Graph") -> str:
    """The tokens by way of which most influence flows, with their shares of that of all tokens."""
    rows = graph.nodes.of("embed")
    influence = graph.influence()[rows]
    strongest = influence.topk(NAMED).indices.tolist()
    parts = [f"{graph.token_texts[i]!r} ({float(influence[i] / influence.sum()):.0%})" for i in strongest]
    return " and ".join(parts)
