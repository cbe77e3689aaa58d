"""Names for the features of a circuit, from JSON lines or a mapping.

    {"Component": "resid", "Layer": "5", "Feature": "3036", "Annotation": "promotes singular verbs"} published files
    {"Name": "resid_5/3036", "Annotation": "promotes singular verbs"}                                the same feature
    {"key": "5.resid_post.feature:3036", "name": "promotes singular verbs"}                          in whence's keys

A published component (embed, attn, mlp, resid) is whatever site of that kind the circuit has in that layer. Cost: one
look at each line and each node. It knows nothing of whether a name is right.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from whence.errors import FileFormatError
from whence.results.circuit_parts import AnyCircuit, CircuitParts
from whence.results.circuit_sites import site_of
from whence.results.keys import Node, index_text
from whence.results.words import counted

logger = logging.getLogger(__name__)
_PLACE = re.compile(r"(embed|attn|mlp|resid)(?:_([0-9]+))?/([0-9]+)")


def annotated(circuit: AnyCircuit, given: str | Path | Mapping[str, str]) -> AnyCircuit:
    """The circuit with names, new ones before those it had; what became of each line is in its provenance.

    Args:
        circuit: The circuit.
        given: A file of JSON lines; or names by key, such as "5.resid_post.feature:3036" or "resid_5/3036".

    Raises:
        FileFormatError: No such file, or one that is no text.

    Example:
        >>> annotated(circuit, {"2.resid_post.feature:7": "plural subject"}).names  # doctest: +SKIP
        {'2.resid_post.feature:7': 'plural subject'}
    """
    pairs = given.items() if isinstance(given, Mapping) else _lines(Path(given))
    known, counts, names = _places(circuit), Counter[str](), dict(circuit.names)
    for place, name in pairs:
        key = known.get(place)
        if key is not None and name:
            names[key] = name
        counts[_fate(place, name, key)] += 1
    said = {what: counts[what] for what in ("used", "elsewhere", "empty", "unreadable")}
    if counts["unreadable"]:
        lines = counted(counts["unreadable"], "line")
        logger.warning("left out of the names, for they do not say which feature is called what: %s", lines)
    return replace(circuit, names=names, provenance=circuit.provenance | {"names": said})


def unplaced(node: Node) -> str:
    """A node's key without its position: what a name is given to.

    Args:
        node: The node.

    Example:
        >>> unplaced(Node("resid_post.feature", 2, 7, position=3))
        '2.resid_post.feature:7'
    """
    return str(node).partition("@")[0]


def _places(circuit: CircuitParts) -> dict[str, str]:
    """Every way to write a node of the circuit, and its key."""
    found: dict[str, str] = {}
    tables = [circuit.nodes] + ([] if circuit.samples is None else [circuit.samples.candidates])
    for node in (node for table in tables for node in table):
        key, site = unplaced(node), site_of(node)
        found[key] = key
        if node.index is not None:
            layer = "" if site.layer < 0 else f"_{site.layer}"
            found.setdefault(f"{site.column}{layer}/{index_text(node.index)}", key)
    return found


def _fate(place: str, name: str, key: str | None) -> str:
    """What becomes of a line."""
    if not _is_place(place):
        return "unreadable"
    return "empty" if not name else "elsewhere" if key is None else "used"


def _is_place(text: str) -> bool:
    if _PLACE.fullmatch(text):
        return True
    try:
        Node.parse(text)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """For each line, where its feature is and what it is called; "" for what it does not say."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} cannot be read as lines of JSON with names: {error}.") from error
    return _entries(line for line in lines if line.strip())


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        yield (_place(entry), _name(entry)) if isinstance(entry, dict) else ("", "")


def _place(entry: dict[str, Any]) -> str:
    if "key" in entry:
        return str(entry["key"])
    if "Component" not in entry:
        return str(entry.get("Name", ""))
    layer = str(entry.get("Layer", ""))
    return f"{entry['Component']}{f'_{layer}' if layer else ''}/{entry.get('Feature', '')}"


def _name(entry: dict[str, Any]) -> str:
    """What a person called it; in published files "Name" mostly repeats which feature it is."""
    said = str(entry.get("name") or entry.get("Annotation") or entry.get("Name") or "").strip()
    return "" if _PLACE.fullmatch(said) else said
