"""From a module path of a decomposed model to the canonical name of its matrix: a pure table.

    wte, transformer.wte, model.embed_tokens, ...        embed.matrix
    lm_head, embed_out                                   output.matrix
    {blocks}.3.attn.q_proj                               3.attn.q        attn_fused where one matrix holds q, k and v
    {blocks}.3.mlp.c_fc                                  3.mlp.up        glu where a gate stands beside

Whether q, k and v are one matrix, and whether an MLP has a gate, shows in the paths beside. Needs no model.
"""

import re
from collections.abc import Collection

_EMBED = ("wte", "transformer.wte", "model.embed_tokens", "gpt_neox.embed_in", "model.decoder.embed_tokens")
_OUTPUT = ("lm_head", "embed_out")
_BLOCKS = "h|h_torch|transformer.h|model.layers|gpt_neox.layers|model.decoder.layers"
_PATH = re.compile(rf"((?:{_BLOCKS.replace('.', '[.]')})[.](\d+)[.])((?:self_)?attn[.]|attention[.]|mlp[.]|)(\w+)")
_ATTENTION = {
    **{"q_proj": "q", "k_proj": "k", "v_proj": "v"},
    **dict.fromkeys(("c_attn", "query_key_value", "qkv_proj"), "qkv"),
    **dict.fromkeys(("o_proj", "c_proj", "out_proj", "dense"), "o"),
}
_MLP = {
    "gate_proj": "gate",
    **dict.fromkeys(("up_proj", "c_fc", "fc1", "fc_in", "dense_h_to_4h"), "up"),
    **dict.fromkeys(("down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h"), "down"),
}


def site_of_module(path: str, beside: Collection[str]) -> str | None:
    """The canonical name of a module's matrix; None where the path is not known.

    Args:
        path: Where the module stands in its model.
        beside: The paths of the model's other modules.

    Example:
        >>> site_of_module("h.0.mlp.down_proj", ["h.0.mlp.c_fc"])
        '0.mlp.down'
        >>> site_of_module("model.layers.2.mlp.down_proj", ["model.layers.2.mlp.gate_proj"])
        '2.glu.down'
    """
    if path in _EMBED or path in _OUTPUT:
        return "embed.matrix" if path in _EMBED else "output.matrix"
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    block, layer, sublayer, name = match.groups()
    attention = "att" in sublayer
    end = (_ATTENTION if attention else _MLP).get(name)
    names = {other.removeprefix(block + sublayer) for other in (path, *beside) if other.startswith(block + sublayer)}
    ends = {(_ATTENTION if attention else _MLP).get(other) for other in names}
    kind = ("attn_fused" if "qkv" in ends else "attn") if attention else ("glu" if "gate" in ends else "mlp")
    return None if end is None else f"{layer}.{kind}.{end}"
