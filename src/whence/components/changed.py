"""A dictionary with every tensor in it changed alike: moved, or read into memory. Cost: that of the changes."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from whence.components.activation import Activation
from whence.components.dictionaries import Dictionary
from whence.components.lazy import LazyRows, Matrix


def with_matrices(dictionary: Dictionary, change: Callable[[Matrix], Matrix]) -> Dictionary:
    """The dictionary with every tensor in it changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor | LazyRows):
            return change(value)
        if isinstance(value, Activation):
            return replace(value, threshold=changed(value.threshold))
        return tuple(changed(one) for one in value) if isinstance(value, tuple) else value

    return replace(dictionary, **{field.name: changed(getattr(dictionary, field.name)) for field in fields(dictionary)})
