"""The page of a graph: what it holds, and what a browser makes of it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from layered_graphs import layered
from whence.results.graph import Graph
from whence.results.graph_page import page

HOSTILE = ("<s>", "</script><script>window.ran = 1</script>", "<img src=x onerror='window.ran = 2'>", " [[DATA]]")
# The page reports on itself: what a reader would see is only known once it has been laid out.
REPORT = """<script>
const report = document.body.dataset
const root = document.documentElement
%s
report.overflow = root.scrollWidth - root.clientWidth
report.nodes = document.querySelectorAll(".node").length
report.errors = document.querySelectorAll(".node.error").length
report.edges = document.querySelectorAll("#edges path").length
report.items = document.querySelectorAll("#panel .item").length
report.injected = document.querySelectorAll("img, script:not([id]):not(:nth-last-of-type(-n+2))").length
report.ran = window.ran || 0
report.outside = marks.filter(mark => mark && mark.getBBox().x < 0).length
</script>"""


def _data(text: str) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def _reported(dom: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r'data-(\w+)="(-?\d+)"', dom)}


def _hostile(graph: Graph) -> Graph:
    return replace(graph, token_texts=HOSTILE, prompt="".join(HOSTILE))


def test_the_page_holds_every_node_and_edge_with_its_weight() -> None:
    graph = layered(0)
    data = _data(page(graph))
    rows, columns, values = graph.weights.coo()

    assert [node["key"] for node in data["nodes"]] == [str(node) for node in graph.nodes]
    expected = zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
    assert {tuple(edge) for edge in data["edges"]} == set(expected)
    assert "add up to" in data["lines"][1]


def test_a_large_graph_is_cut_to_what_matters_most_and_says_so() -> None:
    graph = layered(0, positions=6, most=6)
    data = _data(page(graph, nodes=30, edges=50))
    keys = [node["key"] for node in data["nodes"]]

    assert (len(keys), len(data["edges"])) == (30, 50)
    assert {str(node) for node in graph.nodes if node.name in ("embed", "output")} <= set(keys)
    assert data["lines"][0].endswith("shown are the 30 nodes with most influence and 50 edges")


def test_it_asks_no_network_and_is_one_file(tmp_path: Path) -> None:
    text = layered(0).to_html(tmp_path / "graph.html").read_text(encoding="utf-8")

    assert "default-src 'none'" in text
    assert re.findall(r"https?://(?!www\.w3\.org)\S+", text) == []
    assert [*tmp_path.iterdir()] == [tmp_path / "graph.html"]


def test_no_text_can_end_the_data_or_stand_for_a_part_of_the_page() -> None:
    text = page(_hostile(layered(0)))

    assert _data(text)["columns"] == list(HOSTILE)
    assert (text.count("</script"), text.count("<script"), text.count("<img")) == (2, 2, 0)


@pytest.mark.browser
def test_nodes_edges_and_errors_are_drawn(opened: Callable[..., str]) -> None:
    graph = layered(0)
    seen = _reported(opened(page(graph) + REPORT % ""))

    assert seen["nodes"] == len(graph.nodes)
    assert seen["errors"] == sum(node.name == "mlp.error" for node in graph.nodes)
    assert (seen["edges"], seen["outside"]) == (min(150, graph.weights.nnz), 0)


@pytest.mark.browser
def test_a_node_with_the_focus_lists_its_edges_with_signed_weights(opened: Callable[..., str]) -> None:
    graph = layered(0)
    row = next(row for row, node in enumerate(graph.nodes) if node.name == "mlp.feature" and node.layer == 1)
    edges = graph.into(graph.nodes[row]) + graph.out_of(graph.nodes[row])

    dom = opened(page(graph) + REPORT % f"marks[{row}].focus()")

    assert _reported(dom)["items"] == len(edges)
    strongest = max(edges, key=lambda edge: abs(edge.weight)).weight
    assert f"{'−' if strongest < 0 else '+'}{abs(strongest):.2f}" in dom
    assert str(graph.nodes[row]) in dom


@pytest.mark.browser
def test_the_arrows_lead_from_node_to_node(opened: Callable[..., str]) -> None:
    press = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}))"
    steps = (
        f"marks[0].focus();{press % 'ArrowUp'};report.up = chosen;{press % 'Escape'};report.none = +(chosen === null)"
    )

    seen = _reported(opened(page(layered(0)) + REPORT % steps))

    assert seen["none"] == 1
    assert layered(0).nodes[seen["up"]].layer == 1


@pytest.mark.browser
def test_the_slider_hides_what_is_beyond_its_share(opened: Callable[..., str]) -> None:
    graph = layered(0)
    seen = _reported(opened(page(graph) + REPORT % "slider.value = 60; slider.dispatchEvent(new Event('input'))"))
    shares = graph.cumulative_influence()
    kept = (shares <= 0.6 + 1e-9) | graph.nodes.named(lambda name: name in ("embed", "pos_embed", "output"))

    assert seen["nodes"] == int(kept.sum()) < len(graph.nodes)


@pytest.mark.browser
def test_errors_can_be_hidden(opened: Callable[..., str]) -> None:
    assert _reported(opened(page(layered(0)) + REPORT % "errors.click()"))["errors"] == 0


@pytest.mark.browser
def test_what_tokens_hold_stays_text(opened: Callable[..., str]) -> None:
    seen = _reported(opened(page(_hostile(layered(0))) + REPORT % "marks.find(Boolean).focus()"))

    assert (seen["ran"], seen["injected"]) == (0, 0)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 700])
def test_a_long_prompt_does_not_scroll_sideways(opened: Callable[..., str], width: int) -> None:
    graph = layered(0, positions=40, most=2, density=0.2)

    assert _reported(opened(page(graph) + REPORT % "", width=width))["overflow"] <= 0


def test_a_prompt_that_looks_like_a_mark_of_the_template_stays_a_prompt() -> None:
    graph = replace(layered(0), prompt="[[DATA]] [[POSITIVE]] [[NONE]]")
    text = page(graph)
    title = re.search("<title>(.*?)</title>", text)

    assert title is not None
    assert title[1].startswith("[[DATA]] [[POSITIVE]] [[NONE]] → ")
    assert _data(text)["title"].startswith("[[DATA]] [[POSITIVE]] [[NONE]] → ")
