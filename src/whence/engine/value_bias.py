"""What the value biases alone send through each head, found without knowing how a family stores them.

A head with value bias b_V and a pattern whose rows sum to 1 writes b_V at every position. Run one token with the input
of every attention sublayer set to zero: the values that come out are the biases. Cost: one forward pass over one token.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.model.attention import Attention, AttentionTape, expand_groups, tapped
from whence.model.batch import Batch
from whence.model.hooks import Before, first_tensor, hooked, replace_first
from whence.model.layout import Layout
from whence.model.recorder import run


@torch.no_grad()
def value_biases(layout: Layout) -> dict[int, Float[Tensor, "head d_head"]]:
    """Per layer with attention, the bias that every head's values carry.

    Raises:
        NotImplementedError: patterns cannot be read, or their rows do not sum to 1 (attention sinks), so that a value
            bias is not a constant.
    """
    how = layout.architecture.patterns
    if not layout.attention:
        return {}
    if how is None:
        raise NotImplementedError(
            f"fold_value_bias: attention of {type(layout.hf).__name__} cannot be read; pass fold_value_bias=False"
        )
    seen: dict[nn.Module, Attention] = {}
    before: list[tuple[nn.Module, Before]] = [
        (writer.module, lambda args, kwargs: replace_first(args, kwargs, torch.zeros_like(first_tensor(args, kwargs))))
        for writer in layout.attention
    ]
    device = next(p.device for p in layout.hf.parameters() if p.device.type != "meta")
    token = Batch(torch.zeros(1, 1, dtype=torch.long, device=device), torch.ones(1, dtype=torch.long, device=device))
    tape = AttentionTape("record", on_attention=seen.__setitem__)
    with layout.lock, hooked(before=before), tapped(layout.hf, tuple(w.module for w in layout.attention), how, tape):
        run(layout, token)
    biases: dict[int, Tensor] = {}
    for writer in layout.attention:
        pattern, value = seen[writer.module].pattern, seen[writer.module].value
        if float((pattern.sum(-1) - 1).abs().max()) > 1e-3:
            raise NotImplementedError(
                f"fold_value_bias: attention rows of layer {writer.layer} do not sum to 1 (attention sinks), so a "
                "value bias is no constant; pass fold_value_bias=False"
            )
        biases[writer.layer] = expand_groups(value, pattern.shape[1])[0, :, 0]
    return biases
