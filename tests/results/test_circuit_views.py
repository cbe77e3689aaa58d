"""What a circuit looks like: in a terminal, a notebook, a picture and the page that graphs open in."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.markers import MarkerStyle

from circuits import SLOTS, random_circuit, small_circuit, table
from whence.results.circuit_data import CircuitData
from whence.results.circuit_layout import by_layer, by_site
from whence.results.sheet import NEGATIVE, POSITIVE
from whence.results.weights import Weights

HOSTILE = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'> [[DATA]]"
REPORT = """<script>
const report = document.body.dataset
%s
report.nodes = document.querySelectorAll(".node").length
report.errors = document.querySelectorAll(".node.error").length
report.edges = document.querySelectorAll("#edges path").length
report.items = document.querySelectorAll("#panel .item").length
report.injected = document.querySelectorAll("img, script:not([id]):not(:nth-last-of-type(-n+2))").length
report.ran = window.ran || 0
report.outside = marks.filter(mark => mark && mark.getBBox().x < 0).length
report.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth
</script>"""


def _page(circuit: CircuitData, tmp_path: Path, **limits: int) -> str:
    return circuit.to_html(tmp_path / "circuit.html", **limits).read_text(encoding="utf-8")


def _data(text: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def _reported(dom: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r'data-(\w+)="(-?\d+)"', dom)}


def test_repr_and_table_say_what_there_is() -> None:
    circuit = small_circuit(
        provenance={"metric": "is − are", "model": "tiny", "report": {"closed_gates": 3, "gap": 0.0125}}
    )

    assert repr(circuit) == "CircuitData('Circuit of is − are in tiny': 3 nodes (1 error), 2 examples)"
    said = " ".join(str(circuit).split())
    assert "3 nodes (1 error), 4 edges; the 3 nodes with the largest effects" in said
    assert "1.resid_post.feature:7 +2.000 100%" in said
    assert "total effect +2.000, mean over 2 examples" in said
    assert "closed gates 3; gap 0.0125" in said
    assert repr(random_circuit(examples=1)).endswith(", 1 example)")


def test_a_difference_is_not_said_to_be_a_mean() -> None:
    difference = random_circuit(0, examples=3).diff(random_circuit(1, examples=2))
    said = " ".join(str(difference).split())

    assert ", difference of means over 5 examples in all" in said
    assert ", mean over" not in said


def test_strongest_nodes_come_first_with_their_slot_and_name() -> None:
    circuit = random_circuit(0, SLOTS)
    place = int(circuit.effects[:-1].abs().argmax())
    node = circuit.nodes[place]
    named = circuit.annotate({str(node).partition("@")[0]: "plural subject"})
    first = next(line for line in str(named).splitlines() if str(node) in line)

    assert node.position is not None
    assert f"({SLOTS[node.position]}) plural subject" in first
    assert len([line for line in str(named).splitlines() if "@" in line]) == 15


def test_a_notebook_table_holds_names_as_text_only() -> None:
    shown = small_circuit().annotate({"1.resid_post.feature:7": HOSTILE})._repr_html_()

    assert (shown.count("<script"), shown.count("<img"), shown.count("<tr")) == (0, 0, 5)
    assert "&lt;/script&gt;" in shown


def test_a_circuit_of_nothing_is_shown() -> None:
    empty = small_circuit().top(0)

    assert "0 nodes" in str(empty)
    assert empty._repr_html_().startswith("<table")
    assert empty.plot() is not None


def test_rows_are_sites_and_columns_are_slots_or_kinds() -> None:
    nodes = table(
        *("0.embed.feature:1", "0.attn_z.feature:1", "0.resid_mid.error", "0.mlp.feature:2", "0.resid_post.feature:1"),
        *("1.attn.head:0.q", "1.attn.head:0", "1.mlp", "metric"),
    )
    circuit = CircuitData(nodes, torch.ones(9, dtype=torch.float64), Weights((9, 9), ()), (), 1)
    sites, layers = by_site(circuit), by_layer(circuit)

    assert sites.rows == ("embed", "attn 0", "resid_mid 0", "mlp 0", "resid 0", "attn 1", "mlp 1", "metric")
    assert sites.columns == layers.columns == ("attn", "mlp", "resid")
    assert sites.cells == ((0, 2), (1, 0), (2, 2), (3, 1), (4, 2), (5, 0), (5, 0), (6, 1), (7, 2))
    assert layers.rows == ("embed", "layer 0", "layer 1", "metric")
    assert layers.cells == ((0, 2), (1, 0), (1, 2), (1, 1), (1, 2), (2, 0), (2, 0), (2, 1), (3, 2))
    assert by_site(random_circuit(0, SLOTS)).columns == SLOTS


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_has_every_node_once_and_errors_as_triangles(tmp_path: Path, positions: bool, suffix: str) -> None:
    circuit = random_circuit(0, SLOTS[:3], units=2)
    path = tmp_path / f"circuit{suffix}"
    figure = circuit.plot(path, positions=positions)
    shown = circuit if positions else circuit.summed()
    marks = figure.axes[0].collections
    places = {tuple(mark.get_offsets()[0].tolist()) for mark in marks}
    triangle = MarkerStyle("^").get_path().vertices

    assert path.stat().st_size > 1000
    assert len(places) == len(marks) == len(shown.nodes)
    assert sum(mark.get_paths()[0].vertices.shape == triangle.shape for mark in marks) >= shown.errors
    assert len(figure.axes[0].lines) == min(150, shown.weights.nnz)


def test_colours_are_signs_and_widths_are_sizes() -> None:
    lines = small_circuit().plot().axes[0].lines
    widths = sorted((float(line.get_linewidth()), line.get_color()) for line in lines)

    assert [colour for _, colour in widths] == [POSITIVE, NEGATIVE, POSITIVE, POSITIVE]  # 0.125, −0.25, 0.5, 2
    assert len({width for width, _ in widths}) == 4


def test_names_stand_below_a_picture_as_they_are() -> None:
    figure = small_circuit().annotate({"1.resid_post.feature:7": "$x$ \\frac"}).plot()

    assert figure.get_supxlabel() == "1.resid_post.feature:7 $x$ \\frac"


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its suffix must be one of"):
        small_circuit().plot(tmp_path / "circuit.gif")


@pytest.mark.parametrize("slots", [(), SLOTS])
def test_the_page_holds_every_node_and_edge(tmp_path: Path, slots: tuple[str, ...]) -> None:
    circuit = random_circuit(0, slots, units=1)
    data = _data(_page(circuit, tmp_path))
    rows, columns, values = circuit.weights.coo()

    assert [node["key"] for node in data["nodes"]] == [str(node) for node in circuit.nodes]
    assert {tuple(edge) for edge in data["edges"]} == {
        *zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
    }
    assert data["columns"] == list(slots or ("attn", "mlp", "resid"))
    assert data["rows"][0] == "embed"
    assert data["rows"][-1] == "metric"
    assert data["nodes"][-1]["notes"][0].startswith("total effect")


def test_a_large_circuit_is_cut_to_what_is_strongest_and_says_so(tmp_path: Path) -> None:
    circuit = random_circuit(0, units=6)
    data = _data(_page(circuit, tmp_path, nodes=10, edges=5))
    kept = {str(node) for node in circuit.top(9).nodes}

    assert {node["key"] for node in data["nodes"]} == kept
    assert len(data["edges"]) == 5
    assert data["lines"][0].endswith("shown are the 10 nodes with the largest effects and 5 edges")


def test_it_asks_no_network_and_no_name_can_end_its_data(tmp_path: Path) -> None:
    circuit = replace(random_circuit(0, (HOSTILE, "b")), names={}).annotate({"0.embed.error": HOSTILE})
    text = _page(circuit, tmp_path)

    assert "default-src 'none'" in text
    assert re.findall(r"https?://(?!www\.w3\.org)\S+", text) == []
    assert _data(text)["columns"] == [HOSTILE, "b"]
    assert (text.count("</script"), text.count("<script"), text.count("<img")) == (2, 2, 0)


@pytest.mark.browser
@pytest.mark.parametrize("slots", [(), SLOTS])
def test_a_browser_draws_nodes_edges_and_errors(
    opened: Callable[..., str], tmp_path: Path, slots: tuple[str, ...]
) -> None:
    circuit = random_circuit(0, slots, units=1)
    seen = _reported(opened(_page(circuit, tmp_path) + REPORT % ""))

    assert (seen["nodes"], seen["errors"]) == (len(circuit.nodes), circuit.errors)
    assert (seen["edges"], seen["outside"]) == (min(150, circuit.weights.nnz), 0)
    assert seen["overflow"] <= 0


@pytest.mark.browser
def test_a_node_lists_its_edges_and_its_effect(opened: Callable[..., str], tmp_path: Path) -> None:
    circuit = small_circuit().annotate({"1.resid_post.feature:7": "plural <b>subject</b>"})
    dom = opened(_page(circuit, tmp_path) + REPORT % "marks[2].focus()")

    assert _reported(dom)["items"] == 3
    assert "plural &lt;b&gt;subject&lt;/b&gt; · feature · effect +2.000 · 100% of it in the edges out" in dom


@pytest.mark.browser
def test_what_names_and_slots_hold_stays_text(opened: Callable[..., str], tmp_path: Path) -> None:
    circuit = random_circuit(0, (HOSTILE, "b"), units=1).annotate({"0.embed.error": HOSTILE})
    seen = _reported(opened(_page(circuit, tmp_path) + REPORT % "marks.find(Boolean).focus()"))

    assert (seen["ran"], seen["injected"]) == (0, 0)


@pytest.mark.browser
def test_errors_can_be_hidden(opened: Callable[..., str], tmp_path: Path) -> None:
    assert _reported(opened(_page(random_circuit(0), tmp_path) + REPORT % "errors.click()"))["errors"] == 0
