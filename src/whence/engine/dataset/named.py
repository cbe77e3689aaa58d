"""What a user names as components, sorted out.

    ParameterComponents       every matrix they decompose
    a dictionary or a set     transcoders at the MLPs they stand for, SAEs at their sites
    "attn.head"               heads; as targets only with a covector (`HeadReads`)
    "mlp.neuron"              neurons
    "attn", "mlp", "ssm"      whole sublayers

Knows no model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whence.components.head_reads import HeadReads
from whence.components.parameters import ParameterComponents
from whence.components.sae import SAE
from whence.components.sets import DictionarySet, as_dictionary_set
from whence.components.transcoder import Transcoder

NATIVE = ("attn.head", "mlp.neuron", "attn", "mlp", "ssm")


@dataclass(frozen=True, eq=False)
class Given:
    """What a user named, sorted out."""

    parameters: ParameterComponents | None
    sets: tuple[DictionarySet, ...]
    names: tuple[str, ...]
    heads: HeadReads

    def describe(self) -> list[Any]:
        """What a result records of it, in JSON's types."""
        reads = [self.heads.describe()] if self.heads.covectors else []
        parameters = [] if self.parameters is None else [self.parameters.describe()]
        return [*parameters, *(one.describe() for one in self.sets), *self.names, *reads]


def sorted_out(components: Any) -> Given:
    """Parameter components, dictionaries and names among what was given.

    Raises:
        TypeError: something else.
        ValueError: an unknown name, two sets of parameter components, or covectors of heads without heads.
    """
    single = isinstance(components, str | DictionarySet | SAE | Transcoder | ParameterComponents | HeadReads)
    several: list[Any] = [components] if single or not isinstance(components, Iterable) else list(components)
    names = [one for one in several if isinstance(one, str)]
    unknown = next((name for name in names if name not in NATIVE), None)
    if unknown is not None:
        raise ValueError(f"components= names {unknown!r}; units of the model's own are {', '.join(NATIVE)}")
    parameters = [one for one in several if isinstance(one, ParameterComponents)]
    if len(parameters) > 1:
        raise ValueError("components= holds two sets of parameter components; a matrix can be decomposed in one way")
    heads: dict[str, Tensor] = {}
    for one in several:
        if isinstance(one, HeadReads):
            heads |= one.covectors
    if heads and "attn.head" not in names:
        raise ValueError("components= holds HeadReads without 'attn.head'; heads are sites together or not at all")
    sets = tuple(as_dictionary_set(_dictionary(one)) for one in several if not isinstance(one, _OTHERS))
    return Given(parameters[0] if parameters else None, sets, tuple(names), HeadReads(heads))


_OTHERS = (str, ParameterComponents, HeadReads)


def _dictionary(one: Any) -> Any:
    if not isinstance(one, SAE | Transcoder | DictionarySet):
        raise TypeError(
            f"components= holds a {type(one).__name__}; it takes parameter components (whence.load_components), "
            f"dictionaries (whence.load_dictionary), HeadReads, and the names {', '.join(NATIVE)}"
        )
    return one
