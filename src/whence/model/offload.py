"""Weights out of the way for a while: on the CPU, or in files, and back where they were, bit for bit.

Parameters stay the same objects. A weight on disk leaves a tensor on the meta device in its module (away.py).

Cost: one copy of the weights each way (on disk, written and read back at once, so that nothing is let go of before its
copy is known to be whole), one span of bytes at a time. Knows nothing of the modules around those it is given: a weight
shared with one of them is away for both. See spans.py for what stays.
"""

import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from whence.errors import FileFormatError, WhenceError
from whence.model.away import come_back, leave
from whence.model.layout import Layout
from whence.model.model import Model
from whence.model.spans import Span, spans_of

Offload = Literal["cpu", "disk"]


@contextmanager
def offloaded(
    modules: nn.Module | Sequence[nn.Module] | Layout | Model, to: Offload | None, *, folder: str | Path | None = None
) -> Generator[None]:
    """Inside, the parameters and buffers of some modules are elsewhere; afterwards, and on errors, they are back.

    Args:
        modules: a module (also `ModuleList`, `ModuleDict`, `Sequential`), several, or a model as a whole. Modules that
            are away already (accelerate, an `offloaded` around this one) are left alone.
        to: "cpu"; "disk", where modules cannot run until they are back; None changes nothing.
        folder: where files go; the system's folder for temporary files if None.

    Raises:
        ValueError: another place than these.
        TypeError: something that is no module.
        WhenceError: the files cannot be written (everything is back then), or a weight is used that is on disk.
        FileFormatError: a file cannot be read any more; every other weight is back, and the files are kept.

    Example:
        >>> import whence
        >>> from whence.demo import model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> with whence.offloaded(model, "disk"):
        ...     model.layout.head.weight.device
        device(type='meta')
        >>> model.layout.head.weight.device
        device(type='cpu')
    """
    if to not in (None, "cpu", "disk"):
        raise ValueError(f"offloading to {to!r} is not known; it is 'cpu', 'disk' or None")
    roots, lock = _roots(modules)
    if to is None:
        yield
        return
    with lock:  # a forward pass in another thread waits until the model is back
        spans, waiting = spans_of(roots), (_OnCPU() if to == "cpu" else _OnDisk(folder))
        try:
            for span in spans:
                waiting.take(span)
            yield
        finally:
            waiting.give_back()


@dataclass(eq=False)
class _OnCPU:
    """Spans waiting in the CPU's memory."""

    moved: list[tuple[Span, UInt8[Tensor, " byte"]]] = field(default_factory=list[tuple[Span, Tensor]])

    def take(self, span: Span) -> None:
        if span.device.type != "cpu":
            raw = span.raw().cpu()
            self.moved.append((span, raw))
            span.lie_in(raw)

    def give_back(self) -> None:
        for span, raw in self.moved:
            span.lie_in(raw.to(span.device))


@dataclass(eq=False)
class _OnDisk:
    """Spans waiting in a folder, a file each."""

    parent: str | Path | None
    folder: Path | None = None
    moved: list[tuple[Span, Path]] = field(default_factory=list[tuple[Span, Path]])

    def take(self, span: Span) -> None:
        """Move a span here; it stays where it is if that fails."""
        self.moved.append((span, self._written(span)))  # before it leaves: an interruption loses nothing
        leave(span)

    def _written(self, span: Span) -> Path:
        raw = span.raw().cpu()
        try:
            self.folder = self.folder or Path(tempfile.mkdtemp(prefix="whence-offload-", dir=self.parent))
            file = self.folder / f"{len(self.moved)}.safetensors"
            safetensors.torch.save_file({"bytes": raw}, file)
            if not torch.equal(_read(file), raw):
                raise OSError("what was read back is not what was written")
        except (OSError, SafetensorError) as error:
            where = self.folder or self.parent or tempfile.gettempdir()
            raise WhenceError(
                f"{span.parts[0].path} ({len(span)} bytes) cannot be offloaded to {where}: {error}. Make room there or "
                "choose another folder: `folder=`, or the environment variable TMPDIR."
            ) from error
        return file

    def give_back(self) -> None:
        """Move every span back where it was.

        Raises:
            FileFormatError: some cannot be read; the others are back.
        """
        lost: list[str] = []
        for span, file in self.moved:
            try:
                come_back(span, _read(file).view(len(span)).to(span.device, copy=True))
            except (OSError, SafetensorError, RuntimeError, KeyError) as error:  # the others must still come back
                lost.append(f"{', '.join(part.path for part in span.parts)} from {file}: {error}")
        if lost:
            raise FileFormatError(
                f"offloaded weights that cannot be read back: {'; '.join(lost)}. Load the model again. All others are "
                f"back; {self.folder} is kept."
            )
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _read(file: Path) -> UInt8[Tensor, " byte"]:
    return safetensors.torch.load_file(file)["bytes"]


def _roots(modules: Any) -> tuple[list[nn.Module], Any]:
    """Modules, and the lock to hold while they are away."""
    layout = modules.layout if isinstance(modules, Model) else modules
    if isinstance(layout, Layout):
        return [layout.hf], layout.lock
    roots = [modules] if isinstance(modules, nn.Module) else modules
    if not isinstance(roots, list | tuple) or not all(isinstance(root, nn.Module) for root in roots):
        raise TypeError(
            f"{type(modules).__name__} cannot be offloaded; pass a torch module, a list of modules, or a whence.Model"
        )
    return list(roots), nullcontext()
