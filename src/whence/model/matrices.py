"""The linear maps of a model under their canonical names: `0.attn.q`, `2.glu.down`, `output.matrix`.

The one place where canonical names and a model's own module paths meet; nothing else compares the two. Attention keeps
its maps side by side or in one matrix (`attn_fused.qkv`); an MLP has a gate (`glu`) or none (`mlp`). Not named:
experts, recurrences, and gate and up in one matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from whence.errors import UnsupportedModelError
from whence.model.layout import Layout, Writer, find

_SEPARATE = {"q": "q_proj|query", "k": "k_proj|key", "v": "v_proj|value"}
_FUSED = "c_attn|query_key_value|qkv_proj"


@dataclass(frozen=True, eq=False)
class LinearMap:
    """One matrix of a model.

    Args:
        site: Its canonical name.
        name: The same without a layer: "attn.q".
        layer: Its block; None of the embedding and the unembedding.
        module: The module that applies it.
        path: Where that module stands in the Hugging Face model.
        writer: The sublayer that it belongs to; None of the embedding and the unembedding.
    """

    site: str
    name: str
    layer: int | None
    module: nn.Module
    path: str
    writer: Writer | None


_found: WeakKeyDictionary[Any, dict[str, LinearMap]] = WeakKeyDictionary()


def matrices(layout: Layout) -> dict[str, LinearMap]:
    """The matrices of a model by canonical name, in the order in which a forward pass meets them.

    Example:
        >>> from whence.demo import model_path
        >>> from whence.model.model import Model
        >>> list(matrices(Model.from_pretrained(model_path()).layout))[:4]
        ['embed.matrix', '0.attn.q', '0.attn.k', '0.attn.v']
    """
    with layout.lock:
        if layout.hf not in _found:
            _found[layout.hf] = {one.site: one for one in _all(layout)}
        return _found[layout.hf]


def matrix_at(layout: Layout, site: str) -> LinearMap:
    """One matrix by its canonical name.

    Raises:
        UnsupportedModelError: the model has none of this name.
    """
    known = matrices(layout)
    if site not in known:
        layer = site.split(".")[0]
        near = [name for name in known if name.split(".")[0] == layer] or list(known)[:8]
        raise UnsupportedModelError(
            f"{type(layout.hf).__name__} has no matrix {site!r}; near it there are {', '.join(near)}"
        )
    return known[site]


def site_of_path(layout: Layout, path: str) -> str | None:
    """The canonical name of the matrix that a module path of the Hugging Face model means; None where it has none."""
    return next((one.site for one in matrices(layout).values() if one.path == path), None)


def _all(layout: Layout) -> Iterator[LinearMap]:
    paths = {module: path for path, module in layout.hf.named_modules()}

    def linear(site: str, module: nn.Module, writer: Writer | None) -> LinearMap:
        layer, _, name = site.partition(".") if writer is not None else ("", "", site)
        return LinearMap(site, name, int(layer) if layer else None, module, paths[module], writer)

    yield linear("embed.matrix", layout.embedding, None)
    for writer in layout.writers:
        for name, module in _of(writer):
            yield linear(f"{writer.layer}.{name}", module, writer)
    yield linear("output.matrix", layout.head, None)


def _of(writer: Writer) -> Iterator[tuple[str, nn.Module]]:
    """The matrices of one sublayer, in the order in which they are applied."""
    if writer.name == "attn":
        separate = {end: find(writer.module, path) for end, path in _SEPARATE.items()}
        fused = find(writer.module, _FUSED)
        if all(module is not None for module in separate.values()):
            yield from ((f"attn.{end}", module) for end, module in separate.items() if module is not None)
            yield "attn.o", writer.write
        elif fused is not None:
            yield "attn_fused.qkv", fused
            yield "attn_fused.o", writer.write
    elif writer.name == "mlp" and writer.up is not None and writer.gate is not writer.up:
        kind = "mlp" if writer.gate is None else "glu"
        if writer.gate is not None:
            yield "glu.gate", writer.gate
        yield f"{kind}.up", writer.up
        yield f"{kind}.down", writer.write
