"""Node keys: the one way whence names a thing, in Python, in files, on the command line and on a page.

    key   = [layer "."] name [":" index ["." end]] ["@" position] ["~" source]
    index = int | int "/" int                          (expert / neuron)
    end   = q | k | v | qk (of a head) | gate | up (of a gated neuron)

`9.attn.head:6@14~10` is head 6 of layer 9, writing at position 14 what it reads from position 10. Positions are
absolute. This is the only parser and the only printer: str(node) and Node.parse undo each other. It knows no model:
that layer 9 exists, and what token 262 says, is for others to check.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from whence.results.names import RULES, Need, Rule

_NUMBER = "0|[1-9][0-9]*"  # one spelling a number, so that printing a parsed key gives back its text
_KEY = re.compile(
    rf"(?:(?P<layer>{_NUMBER})\.)?(?P<name>[A-Za-z_]+(?:\.[A-Za-z_]+)*)"
    rf"(?::(?P<index>{_NUMBER})(?:/(?P<inner>{_NUMBER}))?(?:\.(?P<end>[a-z]+))?)?"
    rf"(?:@(?P<position>-?(?:{_NUMBER})))?(?:~(?P<source>-?(?:{_NUMBER})))?"
)


@dataclass(frozen=True, slots=True)
class Node:
    """One named part of a model: a component, or with a position the component at that position.

    Args:
        name: A name of `whence.results.names.RULES`, such as "attn.head".
        layer: Block it belongs to, from 0.
        index: Unit within the layer; (expert, neuron) for a neuron of an expert.
        end: Which input of the unit is meant: q, k, v or qk of a head, gate or up of a gated neuron.
        position: Absolute position in the prompt at which it writes.
        source: Absolute position from which a head reads.

    Raises:
        ValueError: A field the name does not take, a missing one, a negative number, or an unknown name.

    Example:
        >>> str(Node("attn.head", layer=9, index=6, position=14))
        '9.attn.head:6@14'
    """

    name: str
    layer: int | None = None
    index: int | tuple[int, int] | None = None
    end: str | None = None
    position: int | None = None
    source: int | None = None

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(_unknown(self.name, self.name))
        complaint = _complaint(self, RULES[self.name])
        if complaint:
            raise ValueError(f"node '{self}': {complaint}.")

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"{self.layer}."
        index = "" if self.index is None else f":{index_text(self.index)}"
        end = "" if self.end is None else f".{self.end}"
        position = "" if self.position is None else f"@{self.position}"
        source = "" if self.source is None else f"~{self.source}"
        return f"{layer}{self.name}{index}{end}{position}{source}"

    @staticmethod
    def parse(text: str) -> "Node":
        """The node a key names; the inverse of `str`.

        Args:
            text: A key, such as "9.attn.head:6@14~10".

        Raises:
            ValueError: The text is not a key. Names the text and what is wrong, with the nearest name for a near miss.

        Example:
            >>> Node.parse("0.moe.neuron:3/17").index
            (3, 17)
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not a node key. A key is [layer.]name[:index[.end]][@position][~source], "
                "such as '9.attn.head:6@14' or '0.mlp'."
            )
        name, end, index = match["name"], match["end"], _integer(match["index"])
        if name not in RULES:
            raise ValueError(_unknown(name, text))
        pair = None if index is None or match["inner"] is None else (index, int(match["inner"]))
        position, source = _integer(match["position"]), _integer(match["source"])
        return Node(name, _integer(match["layer"]), pair or index, end, position, source)


@dataclass(frozen=True, slots=True)
class Edge:
    """From one node to another. Printed `source -> target`; stored as two keys, so it is never parsed."""

    source: Node
    target: Node

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True, slots=True)
class LogitTarget:
    """An output being explained: its text, and its index in the vocabulary (at or past its end for a virtual one)."""

    token_str: str
    vocab_idx: int


def index_text(index: int | tuple[int, int]) -> str:
    """An index as a key prints it: "6", or "3/17" for neuron 17 of expert 3."""
    return f"{index[0]}/{index[1]}" if isinstance(index, tuple) else str(index)


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def _complaint(node: Node, rule: Rule) -> str:
    """What is wrong with the node's fields, or "" when nothing is."""
    wrong = _presence("layer", node.layer, rule.layer) or _presence("index", node.index, rule.index)
    if wrong:
        return wrong
    if isinstance(node.index, tuple) != (rule.pair and node.index is not None):
        return "its index is expert/neuron, such as ':3/17'" if rule.pair else "its index is one number, such as ':6'"
    if node.end is not None and node.end not in rule.ends:
        return f"it has no end {node.end!r}" + (f"; its ends are {', '.join(rule.ends)}" if rule.ends else "")
    if node.source is not None and not rule.source:
        return f"only attention reads a source token (~{node.source})"
    return _negative(node)


def _presence(field: str, value: object, need: Need) -> str:
    if need == "required" and value is None:
        return f"it needs {'a layer' if field == 'layer' else 'an index'}"
    return f"it takes no {field}, got {value!r}" if need == "none" and value is not None else ""


def _negative(node: Node) -> str:
    inner = node.index if isinstance(node.index, tuple) else (node.index,)
    if any(number is not None and number < 0 for number in (node.layer, *inner)):
        return "layers and indices count from 0"
    if any(number is not None and number < 0 for number in (node.position, node.source)):
        return "positions in a key are absolute; count a negative one from the end of the prompt first"
    return ""


def _unknown(name: str, text: str) -> str:
    near = get_close_matches(name, RULES, n=1)
    hint = f"Did you mean {text.replace(name, near[0], 1)!r}?" if near else f"The names are {', '.join(RULES)}."
    return f"{text!r}: {name!r} is not the name of a node. {hint}"
