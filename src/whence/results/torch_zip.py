"""The zip files that `torch.save` writes, read as plain data: no name in them is looked up, and nothing is called.

    {archive}/data.pkl     a pickle that names storages by number
    {archive}/data/{n}     their bytes

A pickle is a small program: it names functions, and calls them. Here every name it may use stands for something that
only builds data; any other name ends the reading with an error that says which. Cost: the bytes once.
"""

import pickle  # read with an Unpickler whose every name is one of ours
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.errors import FileFormatError

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
RECORDS = ("UnifiedConfig", "LogitTarget", "HookedTransformerConfig")
_PACKAGES = ("circuit_tracer", "transformer_lens")


class Record:
    """What a pickle says of an object: its fields by name, or its values in order. It does nothing.

    Example:
        >>> Record("Austin", 262).values
        ('Austin', 262)
    """

    def __new__(cls, *values: Any) -> "Record":
        made = super().__new__(cls)
        made.values, made.fields = values, {}
        return made

    values: tuple[Any, ...]
    fields: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # (attributes, slots) of a class that has slots
            if isinstance(part, dict):
                self.fields = self.fields | part
            elif isinstance(part, list):
                self.values = tuple(part)


def read_zip(path: Path) -> Any:
    """What was saved: containers, numbers, texts, tensors and records.

    Args:
        path: The file.

    Raises:
        FileFormatError: Not such a file, or one that names anything that is not plain data.

    Example:
        >>> read_zip(Path("austin.pt"))["input_tokens"]  # doctest: +SKIP
        tensor([0, 12, 7])
    """
    if not zipfile.is_zipfile(path):
        raise FileFormatError(f"{path} is not a zip file as torch saves them; save it again with torch 1.6 or newer.")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1 or any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise FileFormatError(f"{path} is a zip file, but not as torch saves them: it has {len(names)} data.pkl.")
        folder = names[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise FileFormatError(f"{path} was written on a machine of another byte order.")
        try:
            return _Reader(archive, folder, path).load()
        except (pickle.UnpicklingError, EOFError, IndexError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path} is damaged: {error}.") from error


class _Reader(pickle.Unpickler):
    """An unpickler that knows plain names only."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, path: Path) -> None:
        super().__init__(BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive, self._folder, self._path = archive, folder, path

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What stands for a name; never the thing of that name."""
        if module_name.partition(".")[0] in _PACKAGES and global_name in RECORDS:
            return Record
        if (module_name, global_name) in _PLAIN:
            known = _PLAIN[module_name, global_name]
            # A pickle may also set attributes of what it is given, so it is given a function of its own.
            return known if isinstance(known, torch.dtype) else lambda *given: known(*given)
        raise FileFormatError(
            f"{self._path} asks for {module_name}.{global_name}, which is no plain data, so it is not opened. "
            "A graph that circuit-tracer saved needs no such name."
        )

    def persistent_load(self, pid: Any, /) -> Tensor:
        """The bytes of a storage, as a flat tensor."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise FileFormatError(f"{self._path} names a storage as {kind!r} of {dtype!r}, which is none.")
        content = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.zeros(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    made = storage.as_strided(size, stride, offset)
    if made.numel() > storage.numel():  # a few bytes could claim to be a matrix of any size
        raise FileFormatError(f"a tensor of shape {tuple(size)} in a storage of {storage.numel()} numbers.")
    return made


def _inert(*values: Any) -> tuple[Any, ...]:
    return values


_PLAIN: dict[tuple[str, str], Callable[..., Any] | torch.dtype] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "Size"): tuple,
    ("torch", "device"): _inert,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    **{("torch", name): getattr(torch, name) for name in _DTYPES},
}
