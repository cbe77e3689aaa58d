import json
import logging
from pathlib import Path

import pytest

from circuits import small_circuit, table
from whence.errors import FileFormatError
from whence.results.circuit_data import CircuitData


def _circuit() -> CircuitData:
    nodes = table("0.embed.feature:3", "5.attn_z.feature:7", "5.resid_post.feature:3036", "metric")
    return small_circuit(nodes=nodes, samples=None)


def _named(tmp_path: Path, *lines: object) -> CircuitData:
    file = tmp_path / "names.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return _circuit().annotate(file)


@pytest.mark.parametrize(
    "line",
    [
        {"Component": "resid", "Layer": "5", "Feature": "3036", "Name": "resid_5/3036", "Annotation": "verbs"},
        {"Component": "resid", "Layer": 5, "Feature": 3036, "Name": "verbs"},
        {"Component": "resid_5", "Feature": "3036", "Annotation": "verbs", "Notes": ""},
        {"Name": "resid_5/3036", "Annotation": "verbs"},
        {"key": "5.resid_post.feature:3036", "name": "verbs"},
    ],
)
def test_a_feature_is_found_however_it_is_written(tmp_path: Path, line: dict[str, object]) -> None:
    circuit = _named(tmp_path, line)

    assert circuit.names == {"5.resid_post.feature:3036": "verbs"}
    assert circuit.provenance["names"] == {"used": 1, "elsewhere": 0, "empty": 0, "unreadable": 0}


def test_embeddings_have_no_layer_and_attention_is_whatever_site_there_is(tmp_path: Path) -> None:
    circuit = _named(
        tmp_path,
        {"Component": "embed", "Layer": "", "Feature": "3", "Name": "embed/3", "Annotation": "nouns"},
        {"Component": "attn", "Layer": "5", "Feature": "7", "Annotation": "copies"},
    )

    assert circuit.names == {"0.embed.feature:3": "nouns", "5.attn_z.feature:7": "copies"}


def test_lines_of_no_use_are_counted_and_not_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        circuit = _named(
            tmp_path,
            {"Component": "Component", "Layer": "", "Feature": "", "Name": "Name", "Annotation": "Annotation"},
            "{not JSON",
            "[1]",
            {"Component": "mlp", "Layer": "4", "Feature": "15560", "Annotation": "animate"},
            {"Component": "resid", "Layer": "5", "Feature": "3036", "Name": "resid_5/3036"},
        )

    assert circuit.names == {}
    assert circuit.provenance["names"] == {"used": 0, "elsewhere": 1, "empty": 1, "unreadable": 3}
    assert "called what: 3 lines" in caplog.text
    _named(tmp_path, "{not JSON")
    assert caplog.messages[-1].endswith("called what: 1 line")


def test_names_add_to_those_that_were_there_and_leave_the_circuit_as_it_was() -> None:
    first = _circuit().annotate({"embed/3": "nouns", "5.attn_z.feature:7": "copies"})
    second = first.annotate({"5.attn_z.feature:7": "repeats"})

    assert second.names == {"0.embed.feature:3": "nouns", "5.attn_z.feature:7": "repeats"}
    assert first.names == {"0.embed.feature:3": "nouns", "5.attn_z.feature:7": "copies"}
    assert _circuit().names == {}


def test_a_candidate_that_was_not_kept_is_named_too() -> None:
    assert small_circuit().annotate({"mlp_0/4": "plural"}).names == {"0.mlp_out.feature:4": "plural"}


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read as lines of JSON"):
        _circuit().annotate(tmp_path / "nowhere")
