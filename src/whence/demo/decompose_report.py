"""How well parameter components stand in for the matrices they decompose, on sentences that no training has drawn.

    nats lost        loss with masked components in the place of all matrices − loss of the model; no delta
    masks            "importances" m = c            "stochastic" m = c + (1 − c) u
                     "needed" m = 1 where c > 0, else 0            "all" m = 1
    active           components with c > 0 at a token, on average
    alive            components with c > 0 at any token of the held-out documents
    delta            |W − (V U)ᵀ| / |W|, Frobenius norms
    missed           Σ|x (Wᵀ − V U)|² / Σ|x Wᵀ|² over tokens but the first

Cost: a forward pass for each kind of mask. What u is drawn for "stochastic" is fixed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from whence.components.parameters import ParameterComponents, Part
from whence.demo.decompose_losses import stochastic
from whence.demo.decompose_sites import Place, linear_maps, observed, run_with
from whence.demo.model import next_token_loss

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Mask: TypeAlias = Callable[[Tensor], Tensor]  # of one matrix's importances


@dataclass(frozen=True, slots=True)
class MatrixScore:
    """The components of one matrix."""

    site: str
    count: int
    alive: int
    active: float
    delta: float
    missed: float


@dataclass(frozen=True, slots=True)
class ComponentsScore:
    """The components of all matrices; losses are in nats, `active` is a share of all components.

    `about` says how they were made.
    """

    about: Mapping[str, Any]
    loss: float
    nats_lost: dict[str, float]
    active: float
    matrices: tuple[MatrixScore, ...]

    def rows(self) -> dict[str, Any]:
        """Everything in JSON's types, rounded to what it can mean."""
        return json.loads(json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 5))

    def __rich__(self) -> Table:
        """Return one row a matrix."""
        lost = " · ".join(f"{name} {value:+.4f}" for name, value in self.nats_lost.items())
        title = f"Parameter components: {self.active:.1%} active at a token; nats lost by mask:\n{lost}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for column in ("matrix", "components", "alive", "active", "delta", "missed"):
            table.add_column(column, justify="left" if column == "matrix" else "right")
        for one in self.matrices:
            table.add_row(
                one.site, f"{one.count}", f"{one.alive}", f"{one.active:.2f}", f"{one.delta:.3f}", f"{one.missed:.4f}"
            )
        return table


@torch.no_grad()
def measure_components(
    found: ParameterComponents, model: "LlamaForCausalLM", ids: Int[Tensor, "document pos"]
) -> ComponentsScore:
    """Return how the components of a model's blocks do on documents, all matrices in place at once.

    Args:
        found: Components of every matrix of every block.
        model: The model that was decomposed.
        ids: Documents to measure on.
    """
    maps = linear_maps(model)
    logits, inputs = observed(model, maps, ids)
    base = next_token_loss(logits, ids).item()
    said = found.importances(inputs, torch.arange(len(ids)))
    lost = {
        name: next_token_loss(run_with(model, maps, ids, _in_place(found, said, mask)), ids).item() - base
        for name, mask in _masks().items()
    }
    active = {site: (c > 0).sum(-1).float().mean().item() for site, c in said.items()}
    rows = tuple(_matrix(found.parts[site], maps[site], inputs[site], active[site]) for site in maps)
    return ComponentsScore(found.about or {}, base, lost, sum(active.values()) / sum(found.counts.values()), rows)


def _masks() -> Mapping[str, Mask]:
    generator = torch.Generator().manual_seed(0)
    return {
        "importances": lambda c: c,
        "stochastic": lambda c: stochastic(c, torch.rand(c.shape, generator=generator)),
        "needed": lambda c: (c > 0).float(),
        "all": torch.ones_like,
    }


def _in_place(found: ParameterComponents, said: Mapping[str, Tensor], mask: Mask) -> Place:
    return lambda site, given, _: (given @ found.parts[site].V * mask(said[site])) @ found.parts[site].U


def _matrix(part: Part, module: nn.Linear, given: Float[Tensor, "document pos into"], active: float) -> MatrixScore:
    whole, x = module.weight.T, given[:, 1:]
    delta = whole - part.V @ part.U
    missed = (x @ delta).square().sum() / (x @ whole).square().sum()
    share = delta.norm() / whole.norm()
    return MatrixScore(part.site, part.count, len(part.ids), active, share.item(), missed.item())
