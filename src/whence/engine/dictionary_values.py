"""What a model said at the places that a dictionary reads and writes, and what a direction is in front of them.

Sites are those of `components.sites`. Everything comes from one recorded write and, where a sublayer is not given what
its dictionary reads, from its norm's input and output. Cost: a few products of vectors. Knows no features.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from whence.components.sites import ReadSite
from whence.engine.ledger import Covector, Pulled, pull_writer
from whence.model.linear import constant_of, pull_linear
from whence.model.norms import probe_norm
from whence.model.trace import Around, Routed, Write


def what_is_read(
    site: ReadSite, write: Write, around: Mapping[nn.Module, Around]
) -> Float[Tensor, "example asked width"]:
    """The site's value, in the dtype it was computed in or the accumulation dtype."""
    if site in ("attn_z", "attn_out", "attn_out_normed", "mlp_out", "mlp_out_normed"):
        return what_is_written(site, write)
    assert write.sublayer is not None
    norm = write.writer.norm
    if site == "mlp_in" or norm is None:
        return write.sublayer.input
    return around[norm].input if site == "resid_mid" else normalized(norm, around[norm])


def what_is_written(site: ReadSite, write: Write) -> Float[Tensor, "example asked width"]:
    """The output that a dictionary at this site stands for."""
    assert not isinstance(write.input, Routed)
    if site == "attn_z":
        return write.input
    return write.output if write.post_norm is None or not site.endswith("_normed") else write.post_norm.output


def pulled_to(site: ReadSite, write: Write, covector: Covector) -> Pulled:
    """The stream's covector, back to this site of the write."""
    if site.endswith("_normed"):
        return Pulled(write.writer.multiplier * covector, None, None)
    pulled = pull_writer(write, covector)
    if site != "attn_z":
        return pulled
    width = what_is_written(site, write).shape[-1]
    back = pull_linear(write.writer.write, pulled.covector, width)
    bias = constant_of(write.writer.write, width, pulled.covector)
    if bias is None:
        return Pulled(back, pulled.rows, pulled.constant)
    constant = pulled.scale((pulled.covector @ bias).expand(*write.output.shape[:2], -1))
    return Pulled(back, pulled.rows, constant if pulled.constant is None else constant + pulled.constant)


def normalized(norm: nn.Module, around: Around) -> Float[Tensor, "example asked d_model"]:
    """c(x) / sigma: what a norm puts out before its gain and bias."""
    probed = probe_norm(norm, around.input.shape[-1])
    scale = probed.inverse_scale(around.input, around.output)
    return probed.centre(around.input.to(scale)) * scale[..., None]
