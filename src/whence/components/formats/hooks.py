"""Where a dictionary reads and writes, from the name that a file gives the place.

    blocks.5.hook_resid_post          a TransformerLens hook                     (see `_HOOKS`)
    model.layers.5.mlp[.input]        a module of a transformers model           (see `_MODULES`)

A module without `.input` or `.output` means its output. In TransformerLens' names `hook_mlp_out` and `hook_attn_out`
lie behind a post-norm, `mlp.hook_out` before it, and `ln2.hook_normalized` before the norm's gain. A name that is not
in the tables is refused: a guess would read the wrong numbers.
"""

import re

from whence.components.sites import ReadSite
from whence.errors import FileFormatError

_HOOKS: dict[str, ReadSite] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "attn_z",
    "hook_attn_out": "attn_out_normed",
    "ln2.hook_normalized": "mlp_in_normalized",
    "mlp.hook_in": "mlp_in",
    "mlp.hook_out": "mlp_out",
    "hook_mlp_in": "resid_mid",
    "hook_mlp_out": "mlp_out_normed",
}
# input, output; `post_attention_layernorm` is missing: it stands before the MLP in Llama and after attention in Gemma
_MODULES: dict[str, tuple[ReadSite | None, ReadSite | None]] = {
    "": ("resid_pre", "resid_post"),
    "mlp": ("mlp_in", "mlp_out"),
    **dict.fromkeys(("self_attn", "attn", "attention"), (None, "attn_out")),
    **dict.fromkeys(("self_attn.o_proj", "attn.c_proj", "attention.dense"), ("attn_z", "attn_out")),
    "pre_feedforward_layernorm": ("resid_mid", "mlp_in"),
    "post_feedforward_layernorm": ("mlp_out", "mlp_out_normed"),
}
_BLOCK = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)(?:\.(.+?))??(?:\.(input|output))?")
_EMBEDDINGS = ("hook_embed", "embed_tokens", "wte", "embed_in")


def place_of_hook(name: str) -> tuple[int, ReadSite]:
    """The layer and site that a name means.

    Args:
        name: A TransformerLens hook or a module of a transformers model.

    Raises:
        FileFormatError: It is neither, or its place is none that whence knows.

    Example:
        >>> place_of_hook("blocks.5.hook_mlp_out")
        (5, 'mlp_out_normed')
        >>> place_of_hook("model.layers.3.mlp.input")
        (3, 'mlp_in')
    """
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if found:
        return int(found[1]), site_of_hook(found[2])
    if name.removesuffix(".output").rpartition(".")[2] in _EMBEDDINGS:
        return 0, "embed"
    found = _BLOCK.fullmatch(name)
    ends = _MODULES.get(found[2] or "") if found else None
    site = None if found is None or ends is None else ends[found[3] != "input"]
    if found is None or site is None:
        raise _unknown(name)
    return int(found[1]), site


def both_sides(module: str) -> tuple[int, ReadSite, ReadSite]:
    """The layer, input site and output site of a module that a transcoder stands for."""
    layer, reads = place_of_hook(f"{module}.input")
    return layer, reads, place_of_hook(module)[1]


def site_of_hook(name: str) -> ReadSite:
    """The site of a hook within a block, such as `hook_resid_post`."""
    if name not in _HOOKS:
        raise _unknown(name)
    return _HOOKS[name]


def _unknown(name: str) -> FileFormatError:
    return FileFormatError(
        f"the hook {name!r} is no place that whence knows. It knows {', '.join(_HOOKS)} of TransformerLens' blocks, "
        f"and the modules {', '.join(filter(None, _MODULES))} of a layer."
    )
