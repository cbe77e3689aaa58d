"""The names a node key may carry, and what each of them takes.

One table, `RULES`: name -> whether a layer, an index, an end and a source token belong to it. The printer, the parser
and the "did you mean" of `keys.py` read nothing else; a name that is not here does not exist.
"""

from dataclasses import dataclass
from typing import Literal

Need = Literal["required", "optional", "none"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a name takes: a layer, an index (one number, or expert/neuron for a pair), ends, a source token."""

    layer: Need = "required"
    index: Need = "none"
    pair: bool = False
    ends: tuple[str, ...] = ()
    source: bool = False


SITES = ("resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_out")
SUBLAYERS = ("attn", "mlp", "moe", "moe.shared", "ssm")
MATRICES = (
    *("attn.q", "attn.k", "attn.v", "attn.o", "attn_fused.qkv", "attn_fused.o"),
    *("glu.gate", "glu.up", "glu.down", "mlp.up", "mlp.down"),
)
_UNIT, _WHOLE, _CONSTANT, _CLOSING = Rule(index="required"), Rule(), Rule("none"), Rule("optional")
_METRIC = Rule("none")  # the one number that a circuit explains
_TOKEN = Rule("none", "optional")  # without a token id where one row serves prompts with different tokens

RULES: dict[str, Rule] = {
    "embed": _TOKEN,
    "pos_embed": _TOKEN,
    "output": Rule("none", "required"),
    "metric": _METRIC,
    "attn.head": Rule(index="required", ends=("q", "k", "v", "qk"), source=True),
    "mlp.neuron": Rule(index="required", ends=("gate", "up")),
    "moe.neuron": Rule(index="required", pair=True, ends=("gate", "up")),
    **dict.fromkeys(("moe.expert", "ssm.channel", "ssm.head", "mlp.feature"), _UNIT),
    **dict.fromkeys([*SUBLAYERS, "block", *SITES], _WHOLE),
    "attn": Rule(source=True),
    **dict.fromkeys((f"{site}.feature" for site in (*SITES, "embed")), _UNIT),
    "mlp.skip": _WHOLE,
    **dict.fromkeys((f"{place}.error" for place in (*SITES, "embed", "mlp")), _WHOLE),
    **dict.fromkeys((f"{place}.bias" for place in (*SITES, "embed", *SUBLAYERS)), _WHOLE),
    **dict.fromkeys(("bias", "final_norm.bias", "output.bias"), _CONSTANT),
    **dict.fromkeys(("rest", "remainder", "nonlinear"), _CLOSING),
    **dict.fromkeys(MATRICES, _UNIT),
    **dict.fromkeys((f"{matrix}.{part}" for matrix in MATRICES for part in ("delta", "bias")), _WHOLE),
    **dict.fromkeys(("embed.matrix", "output.matrix"), Rule("none", "required")),
    **dict.fromkeys(("embed.matrix.delta", "output.matrix.delta"), _CONSTANT),
}
ENDS = ("q", "k", "v", "qk", "gate", "up")  # every end that a name has; files know an end by its place here
