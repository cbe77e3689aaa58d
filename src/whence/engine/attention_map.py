"""An attention sublayer's weights and recorded pattern as one `AttentionMap`: scales, gains and centring folded in."""

import torch

from whence.engine.maps import AttentionMap
from whence.engine.recorded import Recorded
from whence.model.linear import constant_of, matrix_of
from whence.model.trace import Write
from whence.model.values import value_maps


def attention_map(recorded: Recorded, write: Write) -> AttentionMap:
    """What carries covectors through this sublayer."""
    writer, seen = write.writer, write.attention
    like, length = recorded.like, recorded.length
    assert isinstance(write.input, torch.Tensor)
    assert seen is not None
    values = value_maps(recorded.model.layout)[writer.layer]
    entry, exit = recorded.entry(writer, values.input_multiplier), recorded.exit(writer)
    width = recorded.model.d_model
    w_v = values.weight(width, like.device).to(like)
    w_o = matrix_of(writer.write, width, write.input.shape[-1], like)
    pattern = seen.pattern[0, :, :length, :length].to(like)
    heads, groups = len(pattern), values.groups
    # Constants first, while the maps are as the model has them.
    value = w_v @ entry.bias.expand(width) + values.bias(width, like)
    per_head = value.view(groups, 1, -1).expand(-1, heads // groups, -1).reshape(heads, -1)
    out = torch.einsum("hq,he->qhe", pattern.sum(-1), per_head).flatten(1) @ w_o.T
    bias = constant_of(writer.write, write.input.shape[-1], like)
    constant = exit.push(out if bias is None else out + bias) + exit.bias
    scaled = pattern * exit.inverse[:, None] * entry.inverse
    scaled = scaled.view(groups, heads // groups, length, length).permute(0, 3, 2, 1)
    return AttentionMap(
        output=exit.gained(w_o.T).T.contiguous(),
        value=entry.folded(w_v).view(groups, -1, width).contiguous(),
        pattern=scaled.contiguous(),
        constant=constant,
    )
