"""whence: where did this output come from?

The public names, imported when first used: `import whence` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whence.errors import FileFormatError, LedgerError, UnsupportedModelError, WhenceError

_HOME = {
    "WhenceError": "whence.errors",
    "UnsupportedModelError": "whence.errors",
    "LedgerError": "whence.errors",
    "FileFormatError": "whence.errors",
}
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]  # kept in step with the imports above by a test


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'whence' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
