"""What results record of importance functions and of numbers. Cost: a thousand numbers of each tensor."""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from whence.components.importance.given import Given, Ones
from whence.components.importance.network import Network

Known: TypeAlias = Network | Given | Ones  # whence's own, which can be moved and saved
_SAMPLE = 1024  # numbers of a tensor that a fingerprint looks at


def kind_of(importance: Any) -> str:
    """One of whence's kinds, or the name of a function.

    Example:
        >>> kind_of(Ones({})), kind_of(len)
        ('ones', 'function len')
    """
    if isinstance(importance, Known):
        return importance.kind
    return f"function {getattr(importance, '__name__', type(importance).__name__)}"


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen letters that differ where names, shapes, or numbers evenly spread over each tensor do."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().flatten()
        found.update(f"{name}{tuple(tensor.shape)}".encode())
        found.update(flat[:: max(1, flat.numel() // _SAMPLE)].double().cpu().numpy().tobytes())
    return found.hexdigest()[:16]
