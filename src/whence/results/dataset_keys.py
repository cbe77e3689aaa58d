"""Sites of dataset attributions and node keys: one is the other without, or with, the unit's number.

    0.attn.q, 17          <->  0.attn.q:17              0.attn.head.q, 6         <->  0.attn.head:6.q
    embed, 262            <->  embed:262                0.moe.neuron:3.gate, 17  <->  0.moe.neuron:3/17.gate
    bias, 0               <->  bias                     a site that is one thing has the number 0

Learned positions are one site, whatever the position. Cost: one parse. Knows nothing of stores.
"""

import re

from whence.results.dataset_axes import STREAM
from whence.results.keys import Node
from whence.results.names import RULES, Rule

_SITE = re.compile(r"(?P<layer>[0-9]+\.)?(?P<name>[A-Za-z_.]+?)(?P<expert>:[0-9]+(?:/[0-9]+)*)?(?P<end>\.[a-z]+)?")


def node_of(site: str, id: int) -> Node:
    """The node that is unit `id` of a site.

    Args:
        site: Text of its keys without an index.
        id: Which unit; 0 where the site is one thing.

    Raises:
        ValueError: No such site, a coordinate of the stream (which is no node), or a number above 0 of a site that is
            one thing.

    Example:
        >>> str(node_of("0.attn.head.q", 6)), str(node_of("bias", 0))
        ('0.attn.head:6.q', 'bias')
    """
    if site == STREAM:
        raise ValueError(f"{STREAM!r} has coordinates, which are no nodes. Ask for a token: 'output:{id}'.")
    layer, name, expert, end = _parts(site)
    rule = RULES.get(name)
    if rule is None or not _indexed(name, rule):
        if id != 0:
            raise ValueError(f"{site!r} is one thing, so its number is 0, not {id}.")
        return Node.parse(site)
    return Node.parse(f"{layer}{name}{f'{expert}/{id}' if rule.pair else f'{expert}:{id}'}{end}")


def site_of(node: Node) -> tuple[str, int]:
    """The site of a node and its number there: the inverse of `node_of`.

    Args:
        node: A node without a position: dataset attributions are sums over all of them.

    Raises:
        ValueError: A node with a position or a source token, an embedding without its token, or one learned position.

    Example:
        >>> site_of(Node("attn.head", 0, 6, "q"))
        ('0.attn.head.q', 6)
    """
    complaint = _complaint(node)
    if complaint:
        raise ValueError(f"'{node}': {complaint}.")
    layer = "" if node.layer is None else f"{node.layer}."
    end = "" if node.end is None else f".{node.end}"
    if isinstance(node.index, tuple):
        expert, id = node.index
        return f"{layer}{node.name}:{expert}{end}", id
    return f"{layer}{node.name}{end}", node.index or 0


def _parts(site: str) -> tuple[str, str, str, str]:
    """Layer, name, expert and end, with their separators."""
    match = _SITE.fullmatch(site)
    if match is None:
        raise ValueError(f"{site!r} is not a site. A site is a key without its index, such as '0.attn.q' or 'embed'.")
    layer, name, expert, end = (match[part] or "" for part in ("layer", "name", "expert", "end"))
    whole = f"{name}{end}"
    return (layer, whole, "", "") if not expert and whole in RULES else (layer, name, expert, end)


def _indexed(name: str, rule: Rule) -> bool:
    """Whether the units of a site have numbers."""
    return rule.index == "required" or name == "embed"


def _complaint(node: Node) -> str:
    if node.position is not None or node.source is not None:
        return "dataset attributions are sums over all positions; leave out '@' and '~'"
    if node.name == "embed" and node.index is None:
        return "say which token, such as 'embed:262'"
    if node.name == "pos_embed" and node.index is not None:
        return "learned positions are one source, 'pos_embed'"
    return ""
