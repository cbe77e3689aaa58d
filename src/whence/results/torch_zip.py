"""The zip files that `torch.save` writes, read as plain data: no name in them is looked up, and nothing is called.

    {archive}/data.pkl     a pickle that names storages by number
    {archive}/data/{n}     their bytes

A pickle is a small program: it names functions, and calls them. Here every name it may use stands for something that
only builds data; any other name ends the reading with an error that says which. A program can also say one thing many
times, or claim more than is there: so each storage is read once, nothing is copied, a name is given a few values at
most, and entries of the archive may not share bytes. Cost: the bytes once.
"""

import pickle  # read with an Unpickler whose every name is one of ours
import zipfile
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
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
_LONGEST_PROGRAM = 1 << 24  # bytes; that of a graph takes some thousands, and more for a long prompt
_MOST_VALUES = 16  # that a name is given
# What Python, zipfile and torch raise at a program or an archive that makes no sense.
_DAMAGE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, RuntimeError, MemoryError),
)


class Record:
    """What a pickle says of an object: its fields by name, or its values in order. It does nothing.

    Example:
        >>> Record("Austin", 262).values
        ('Austin', 262)
    """

    def __new__(cls, *values: Any) -> "Record":
        made = super().__new__(cls)
        made.values, made.fields = _few(values), ChainMap[str, Any]()
        return made

    values: Sequence[Any]
    fields: ChainMap[str, Any]

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # (attributes, slots) of a class that has slots
        named = [part for part in parts[:2] if isinstance(part, dict)]
        self.fields = ChainMap(*reversed(named))
        for part in parts[:2]:
            if isinstance(part, list):
                self.values = part


def read_zip(path: Path) -> Any:
    """What was saved: containers, numbers, texts, tensors and records.

    Args:
        path: The file.

    Raises:
        FileFormatError: No such file, one of another kind, or one that names anything that is not plain data.

    Example:
        >>> read_zip(Path("austin.pt"))["input_tokens"]  # doctest: +SKIP
        tensor([0, 12, 7])
    """
    with opened(path) as (archive, folder):
        return Reader(archive, folder, path).load()


@contextmanager
def opened(path: Path) -> Generator[tuple[zipfile.ZipFile, str]]:
    """The archive and the folder in it that has its parts; what its reading raises becomes a sentence."""
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist, or is no file; give the path of a file that torch saved.")
    if not zipfile.is_zipfile(path):
        raise FileFormatError(f"{path} is not a zip file as torch saves them; save it again with torch 1.6 or newer.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, _folder(archive, path)
    except _DAMAGE as error:
        raise FileFormatError(f"{path} is damaged: {type(error).__name__}, {error}.") from error


def _folder(archive: zipfile.ZipFile, path: Path) -> str:
    """Where in the archive its parts are, once it has been seen to be one of torch's."""
    entries = archive.infolist()
    names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1 or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise FileFormatError(f"{path} is a zip file, but not as torch saves them: it has {len(names)} data.pkl.")
    size, claimed = path.stat().st_size, sum(entry.file_size for entry in entries)
    if claimed > size:  # entries that share their bytes, each of which would be read
        raise FileFormatError(f"{path} claims to hold {claimed} bytes, and has {size}; torch saves no such file.")
    if archive.getinfo(names[0]).file_size > _LONGEST_PROGRAM:
        raise FileFormatError(f"{path}: its data.pkl is longer than {_LONGEST_PROGRAM} bytes, which no file needs.")
    folder = names[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise FileFormatError(f"{path} was written on a machine of another byte order.")
    return folder


class Reader(pickle.Unpickler):
    """An unpickler that knows plain names only."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, path: Path) -> None:
        super().__init__(BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive, self._folder, self._path = archive, folder, path
        self._storages: dict[str, bytearray] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What stands for a name; never the thing of that name."""
        if module_name.partition(".")[0] in _PACKAGES and global_name in RECORDS:
            return Record
        if (module_name, global_name) in _PLAIN:
            known = _PLAIN[module_name, global_name]
            # A pickle may also set attributes of what it is given, so it is given a function of its own.
            return known if isinstance(known, torch.dtype) else lambda *given: known(*_few(given))
        raise FileFormatError(
            f"{self._path} asks for {module_name}.{global_name}, which is no plain data, so it is not opened. "
            "A graph that circuit-tracer saved, or a state dict of tensors, needs no such name."
        )

    def persistent_load(self, pid: Any, /) -> Tensor:
        """The bytes of a storage, as a flat tensor."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise FileFormatError(f"{self._path} names a storage as {kind!r} of {dtype!r}, which is none.")
        if key not in self._storages:
            self._storages[key] = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        content = self._storages[key]
        return torch.frombuffer(content, dtype=dtype) if content else torch.zeros(0, dtype=dtype)


def _few(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) > _MOST_VALUES:
        raise FileFormatError(f"a name is given {len(values)} values, and none takes more than {_MOST_VALUES}.")
    return values


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    made = storage.as_strided(size, stride, offset)
    if made.numel() > storage.numel():  # a few bytes could claim to be a matrix of any size
        raise FileFormatError(f"a tensor of shape {tuple(size)} in a storage of {storage.numel()} numbers.")
    return made


def _inert(*values: Any) -> tuple[Any, ...]:
    return values


def _size(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return lengths


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PLAIN: dict[tuple[str, str], Callable[..., Any] | torch.dtype] = {
    ("collections", "OrderedDict"): _ordered,
    TENSOR: _tensor,
    ("torch", "Size"): _size,
    ("torch", "device"): _inert,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    **{("torch", name): getattr(torch, name) for name in _DTYPES},
}
