"""How finely a model is told apart: the granularities, which of them go together, and which mean something for a model.

A granularity splits some kinds of writers into units and leaves the others whole; two that split different kinds may be
asked for in one pass, e.g. ("head", "neuron"). Knows nothing of rows or scores.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import combinations
from typing import Literal, TypeAlias, cast, get_args

from whence.model.layout import Layout

Granularity: TypeAlias = Literal["component", "layer", "head", "source_token", "neuron", "expert", "channel", "feature"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)

# The kinds of writers that each one splits. Heads of an SSM give way to its channels where both are asked for.
SPLITS: dict[Granularity, frozenset[str]] = {
    "head": frozenset({"attn"}),
    "source_token": frozenset({"attn"}),
    "neuron": frozenset({"mlp", "moe"}),
    "expert": frozenset({"moe"}),
    "channel": frozenset({"ssm"}),
}


def granularities(by: str | Sequence[str]) -> frozenset[Granularity]:
    """One granularity or several that go together, as a set.

    Args:
        by: as the caller gave it.

    Raises:
        ValueError: an unknown name, none at all, or two that exclude each other, naming them.

    Example:
        >>> sorted(granularities(("head", "neuron")))
        ['head', 'neuron']
    """
    names = [by] if isinstance(by, str) else list(by)
    for name in names:
        if name not in GRANULARITIES:
            near = get_close_matches(name, GRANULARITIES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(GRANULARITIES)}"
            raise ValueError(f"by={name!r} is no granularity; {hint}")
    if not names:
        raise ValueError(f"by={by!r} names no granularity; it is one or several of {', '.join(GRANULARITIES)}")
    known = cast(list[Granularity], list(dict.fromkeys(names)))
    alone = next((name for name in known if name not in SPLITS), None)
    if alone is not None and len(known) > 1:
        raise ValueError(f"by={by!r}: {alone!r} stands alone; those that can be combined are {', '.join(SPLITS)}")
    for one, other in combinations(known, 2):
        if both := SPLITS[one] & SPLITS[other]:
            raise ValueError(
                f"by={by!r}: {one!r} and {other!r} both split {', '.join(sorted(both))} writes; choose one of them"
            )
    return frozenset(known)


def refuse_meaningless(layout: Layout, by: frozenset[Granularity]) -> None:
    """Refuse a granularity that no sublayer of the model has.

    Raises:
        NotImplementedError: naming the layer, what it holds, and what is available.
    """
    offered = available(layout)
    for name in sorted(by & SPLITS.keys() - set(offered)):
        held = " and ".join(writer.name for writer in layout.of(0))
        splits = {writer.name for writer in layout.writers} & SPLITS[name]
        why = (
            "its attention patterns cannot be read"
            if splits
            else f"layer 0 holds {held}, and no layer anything that has them"
        )
        raise NotImplementedError(
            f"by={name!r} has no meaning for {type(layout.hf).__name__}: {why}. Available: {', '.join(offered)}"
        )


def available(layout: Layout) -> list[Granularity]:
    """The granularities that mean something for a model."""
    names = {writer.name for writer in layout.writers}
    found: list[Granularity] = ["component", "layer"]
    if "attn" in names or any(writer.heads for writer in layout.writers):
        found.append("head")
    if "attn" in names and layout.architecture.patterns is not None:
        found.append("source_token")
    if names & {"mlp", "moe"}:
        found.append("neuron")
    if "moe" in names:
        found.append("expert")
    if "ssm" in names:
        found.append("channel")
    return found
