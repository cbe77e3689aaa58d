"""Reading what the matrices of a model are given, and running it with something else in the place of what they give.

Forward hooks on the matrices' own modules, always removed. Cost: the forward pass. Gradients pass through what is put
in place, if anything needs them.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.model.matrices import matrices
from whence.model.model import Model

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Place: TypeAlias = Callable[[str, Tensor, Tensor], Tensor | None]  # (site, given, what the matrix gives) -> its stead


def linear_maps(model: "LlamaForCausalLM") -> dict[str, nn.Linear]:
    """Return the matrices of every block under their canonical names, without embedding and unembedding."""
    found = matrices(Model(model).layout).values()
    return {one.site: one.module for one in found if one.layer is not None and isinstance(one.module, nn.Linear)}


def run_with(
    model: "LlamaForCausalLM", maps: Mapping[str, nn.Linear], ids: Int[Tensor, "document pos"], place: Place
) -> Float[Tensor, "document pos vocab"]:
    """Return the logits with every matrix's output replaced by what `place` returns, or left where that is None."""

    def hook(site: str) -> Callable[[Any, Any, Any], Any]:
        return lambda _, args, output: place(site, args[0], output)

    with ExitStack() as hooks:
        for site, module in maps.items():
            hooks.callback(module.register_forward_hook(hook(site)).remove)
        return model(ids).logits


@torch.no_grad()
def observed(
    model: "LlamaForCausalLM", maps: Mapping[str, nn.Linear], ids: Int[Tensor, "document pos"]
) -> tuple[Float[Tensor, "document pos vocab"], dict[str, Float[Tensor, "document pos _"]]]:
    """Return the model's own logits, and what each matrix is given."""
    inputs: dict[str, Tensor] = {}

    def keep(site: str, given: Tensor, output: Tensor) -> None:
        inputs[site] = given

    return run_with(model, maps, ids, keep), inputs
