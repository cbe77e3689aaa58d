"""What `whence demo` ends with: the graph of the model's answer, pruned, verified and as a page."""

from pathlib import Path
from typing import TYPE_CHECKING

from whence.cli.console import print_table, say, stdout

if TYPE_CHECKING:
    from whence.model.model import Model
    from whence.results.graph import Graph

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
    out.print(
        f"\nHow to read it: each feature of the {len(whole.selected_features)} that were active is what wrote to it below "
        f"plus a constant, and so is the answer. {_tokens(whole)} weigh most among the tokens: the two facts it put together.",
        markup=False,
    )
    out.print(
        f"Removing {len(report.nodes)} nodes from the model, one by one, changed what lies above by what the graph says: "
        f"error {report.frozen.max_error:.0e} with attention and norms held, rank correlation {report.live.spearman:.2f} "
        "with both left free.\n",
        markup=False,
    )
    out.print(f"Page     {graph.to_html(page)}", soft_wrap=True, markup=False)


def _tokens(graph: "Graph") -> str:
    """The tokens by way of which most influence flows, with their shares of that of all tokens."""
    rows = graph.nodes.of("embed")
    influence = graph.influence()[rows]
    strongest = influence.topk(NAMED).indices.tolist()
    parts = [f"{graph.token_texts[i]!r} ({float(influence[i] / influence.sum()):.0%})" for i in strongest]
    return " and ".join(parts)
