"""State dicts that `torch.save` wrote, read as plain data: only the tensors that are wanted, none of the others' bytes.

Tensors are put off while the file's program runs, and made afterwards, by name. Cost: the bytes of those that are
wanted. What the file may say is what `torch_zip.py` lets it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from whence.errors import FileFormatError
from whence.results.torch_zip import TENSOR, Reader, opened


def read_state(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor | None]:
    """The tensors of a state dict by name, in its order; None where one is not wanted, and then its bytes stay unread.

    Args:
        path: The file.
        wanted: Which names are.

    Raises:
        FileFormatError: As `read_zip`, or no state dict.

    Example:
        >>> read_state(Path("model_1000.pth"), lambda name: name.endswith(".V"))  # doctest: +SKIP
        {'wte.weight': None, 'c_fc.V': tensor([[0.5, ...]])}
    """
    with opened(path) as (archive, folder):
        found = _LateReader(archive, folder, path).load()
        if not isinstance(found, dict) or not all(isinstance(one, _Late) for one in found.values()):
            raise FileFormatError(f"{path} is no state dict: it holds something else than tensors by name.")
        return {str(name): late.make() if wanted(str(name)) else None for name, late in found.items()}


class _Late:
    """A tensor of a file, not yet read."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self.make = make


class _LateReader(Reader):
    """The same, but tensors are read when they are asked for."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What stands for a name; for that of a tensor, something that makes it later."""
        found = super().find_class(module_name, global_name)
        return partial(_put_off, found) if (module_name, global_name) == TENSOR else found

    def persistent_load(self, pid: Any, /) -> Any:
        """Where to find the bytes of a storage."""
        return partial(super().persistent_load, pid)


def _put_off(build: Callable[..., Tensor], storage: Callable[[], Tensor], *given: Any) -> _Late:
    return _Late(lambda: build(storage(), *given))
