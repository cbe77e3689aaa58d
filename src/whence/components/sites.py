"""The places of a block that dictionaries read and write, by name.

    resid_pre, resid_mid, resid_post   the stream before, between and after the block's sublayers
    mlp_in                             what the MLP is given: behind its norm, gain and bias included
    mlp_in_normalized                  the same before the norm's gain and bias: c(x) / sigma
    attn_z                             the heads' outputs side by side, before the output map
    attn_out, mlp_out                  what the sublayer's last map puts out
    attn_out_normed, mlp_out_normed    the same behind the sublayer's post-norm; where there is none, the same
    embed                              the token embeddings, as they enter the stream

Names only: nothing is computed here.
"""

from typing import Literal, TypeAlias, get_args

Site: TypeAlias = Literal[
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_z",
    "attn_out",
    "attn_out_normed",
    "mlp_out",
    "mlp_out_normed",
    "embed",
]
TranscoderInput: TypeAlias = Literal["mlp_in", "mlp_in_normalized", "resid_mid"]
TranscoderOutput: TypeAlias = Literal["mlp_out", "mlp_out_normed"]
ReadSite: TypeAlias = Site | TranscoderInput
DictionaryKind: TypeAlias = Literal["transcoder", "cross_layer_transcoder", "sae"]

SITES: tuple[Site, ...] = get_args(Site)
INPUTS: tuple[TranscoderInput, ...] = get_args(TranscoderInput)
OUTPUTS: tuple[TranscoderOutput, ...] = get_args(TranscoderOutput)


def place_name(site: Site) -> str:
    """The first part of the names of the features there: a post-norm makes no place of its own.

    Example:
        >>> place_name("mlp_out_normed")
        'mlp_out'
    """
    return site.removesuffix("_normed")
