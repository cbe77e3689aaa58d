"""Circuits in a terminal and a notebook: one line for `repr`, and a table of the nodes with the largest effects."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from whence.results.circuit_parts import CircuitParts
from whence.results.circuit_sheet import nodes, notes, size, title, word
from whence.results.keys import Node
from whence.results.notebook import Row, notebook_table
from whence.results.sheet import NEGATIVE, POSITIVE, number_format
from whence.results.words import counted


def line(circuit: CircuitParts) -> str:
    """A circuit in one line; the edges of a file are not read for it.

    Args:
        circuit: The circuit.

    Example:
        >>> line(circuit)  # doctest: +SKIP
        "Circuit('Circuit of logit difference in gpt2': 40 nodes (6 errors), 100 examples)"
    """
    return f"{type(circuit).__name__}({title(circuit)!r}: {nodes(circuit)}, {counted(circuit.examples, 'example')})"


def table(circuit: CircuitParts, k: int = 15) -> Table:
    """The k nodes with the largest effects, the share of each that edges carry, and the totals below.

    Args:
        circuit: The circuit.
        k: How many nodes.

    Example:
        >>> rich.print(table(circuit))  # doctest: +SKIP
    """
    found = [*_strongest(circuit, k)]
    show = number_format(max((abs(effect) for _, effect, _ in found), default=0.0))
    heading = Text(title(circuit), "bold") + Text(f"\n{_below(circuit, len(found))}", "not bold dim")
    out = Table(title=heading, caption=Text("\n".join(notes(circuit)), "dim"), box=box.SIMPLE_HEAD, pad_edge=False)
    out.title_justify = out.caption_justify = "left"
    out.add_column("node", no_wrap=True)
    for name in ("effect", "in edges"):
        out.add_column(name, justify="right", no_wrap=True)
    for node, effect, explained in found:
        name = Text(str(node)) + Text(f"  {word(circuit, node)}".rstrip(), "dim")
        share = "" if not circuit.weights.nnz or explained != explained else f"{explained:.0%}"
        out.add_row(name, Text(show(effect), POSITIVE if effect > 0 else NEGATIVE), share)
    return out


def html(circuit: CircuitParts, k: int = 15) -> str:
    """A `<table>` of the k nodes with the largest effects.

    Args:
        circuit: The circuit.
        k: How many nodes.

    Example:
        >>> html(circuit)[:6]  # doctest: +SKIP
        '<table'
    """
    found = [*_strongest(circuit, k)]
    largest = max((abs(effect) for _, effect, _ in found), default=0.0) or 1.0
    show = number_format(largest)
    rows = [Row(((str(node), word(circuit, node)),), show(effect), effect / largest) for node, effect, _ in found]
    return notebook_table(title(circuit), _below(circuit, len(found)), ("node", "effect"), rows, notes(circuit))


def _below(circuit: CircuitParts, shown: int) -> str:
    return f"{size(circuit)}; the {shown} nodes with the largest effects"


def _strongest(circuit: CircuitParts, k: int) -> Iterator[tuple[Node, float, float]]:
    """Node, effect and explained share, without the metric."""
    order = circuit.effects[:-1].abs().argsort(descending=True, stable=True)[:k]
    columns = (circuit.effects[order].tolist(), circuit.explained[order].tolist())
    yield from zip(circuit.nodes.select(order), *columns, strict=True)
