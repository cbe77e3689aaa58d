"""Decomposing the demo's matrices into rank-one components, each with an importance at every token.

Stochastic parameter decomposition of every matrix of every block:

    loss = divergence + weight · faithfulness + weight · minimality        (decompose_losses.py)

The documents of a batch run in one pass: half with stochastic masks on all matrices, a quarter with such masks on some
matrices drawn for each token (the others as they are), a quarter with the least masks, m = c. Without these, what all
do at their least together is never seen: no draw comes near it. The power p of the minimality falls evenly from 2. The
model is not trained, and what the components miss of it (delta) takes no part. Cost: a quarter of a second of one core
for a step of 1024 tokens at d_model 128, with 64 components a matrix.
"""

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.components.importance.layers import perceptron
from whence.components.importance.network import Network
from whence.components.parameters import ParameterComponents, Part
from whence.demo import decompose_start
from whence.demo.decompose_losses import divergence, faithfulness, importance, minimality, routes, stochastic
from whence.demo.decompose_sites import linear_maps, observed, run_with
from whence.demo.model import document_seed
from whence.demo.tokenizer import documents
from whence.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class DecomposeRecipe:
    """Sizes of a decomposition and of its training.

    `start` documents say where it starts, `held_out` ones which components are alive.
    """

    count: int = 64
    hidden: int = 32
    steps: int = 1400
    batch: int = 16
    context: int = 64
    start: int = 512
    held_out: int = 512
    learning_rate: float = 2e-3
    network_learning_rate: float = 4e-3
    minimality: float = 7e-4
    faithfulness: float = 1000.0
    last_power: float = 0.5


def decompose(
    model: "LlamaForCausalLM",
    recipe: DecomposeRecipe,
    vocab: dict[str, int],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> ParameterComponents:
    """Return the components of every matrix, their networks, and which of them held-out sentences ever need.

    Args:
        model: A model of the demo's grammar; it stays as it is.
        recipe: Sizes and steps.
        vocab: The demo's vocabulary.
        seed: Sets the networks' start, every sentence and every mask drawn.
        progress: Called with (stage, done, total) after each step.
    """
    training = _Training(model, recipe, vocab, seed)
    for step in range(recipe.steps):
        missed = training.step(step)
        progress(f"components: KL {missed:.4f}", step + 1, recipe.steps)
    return training.finished()


class _Training:
    """The weights of all components and networks, and a step of theirs."""

    def __init__(self, model: "LlamaForCausalLM", recipe: DecomposeRecipe, vocab: dict[str, int], seed: int) -> None:
        self.began = time.process_time()
        self.model, self.recipe, self.seed = deepcopy(model).requires_grad_(False), recipe, seed
        self.maps, self.vocab = linear_maps(self.model), vocab
        self.generator = torch.Generator().manual_seed(seed)
        _, inputs = observed(self.model, self.maps, self._documents(0, recipe.start))
        self.parts, self.networks = dict[str, Part](), dict[str, Tensor]()
        for site, module in self.maps.items():
            self._start(site, inputs[site][:, 1:].flatten(0, 1), module.weight)
        matrices = [tensor.requires_grad_() for part in self.parts.values() for tensor in (part.V, part.U)]
        networks = [tensor.requires_grad_() for tensor in self.networks.values()]
        groups = (matrices, recipe.learning_rate), (networks, recipe.network_learning_rate)
        self.optimizer = torch.optim.Adam(
            [{"params": own, "lr": rate, "top": rate} for own, rate in groups], fused=True
        )

    def _documents(self, step: int, count: int) -> Int[Tensor, "document pos"]:
        return documents(document_seed("fit", self.seed, step), count, self.recipe.context, self.vocab)

    def _start(self, site: str, inputs: Float[Tensor, "token into"], weight: Float[Tensor, "out into"]) -> None:
        count, hidden = self.recipe.count, self.recipe.hidden
        self.parts[site] = Part(site, *decompose_start.components(inputs, weight, count))
        network = decompose_start.network(inputs, hidden, count, self.generator)
        self.networks |= {f"{site}.{name}": tensor for name, tensor in network.items()}

    def step(self, step: int) -> float:
        """Take one step and return the divergence before it."""
        share, recipe = step / self.recipe.steps, self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = group["top"] * min(1.0, (step + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + cos(pi * share)))
        ids = self._documents(step + 1, recipe.batch)
        truth, inputs = observed(self.model, self.maps, ids)
        said = {site: perceptron(inputs[site], self.networks, f"{site}.") for site in self.maps}
        missed = divergence(self._masked(ids, said), truth)
        loss = missed + recipe.faithfulness * faithfulness([self._delta(site) for site in self.maps])
        loss = loss + recipe.minimality * minimality(said.values(), 2 - (2 - recipe.last_power) * share)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return missed.item()

    def _masked(
        self, ids: Int[Tensor, "document pos"], said: Mapping[str, Tensor]
    ) -> Float[Tensor, "document pos vocab"]:
        """Return the logits with a batch's masks on."""
        some, least = len(ids) // 2, len(ids) * 3 // 4
        routed = routes(len(said), (len(ids), ids.shape[1]), self.generator)
        routed[:, :some] = routed[:, least:] = True
        routed_at: dict[str, Bool[Tensor, "document pos"]] = dict(zip(said, routed, strict=True))

        def place(site: str, given: Tensor, output: Tensor) -> Tensor:
            chance = torch.rand(said[site].shape, generator=self.generator)
            chance[least:] = 0.0
            mask = stochastic(importance(said[site]), chance)
            ours = (given @ self.parts[site].V * mask) @ self.parts[site].U
            return torch.where(routed_at[site][..., None], ours, output)

        return run_with(self.model, self.maps, ids, place)

    def _delta(self, site: str) -> Float[Tensor, "into out"]:
        return self.maps[site].weight.T - self.parts[site].V @ self.parts[site].U

    @torch.no_grad()
    def finished(self) -> ParameterComponents:
        """Return what was found, alive where held-out documents ask for it."""
        parts = {site: Part(site, part.V.detach(), part.U.detach()) for site, part in self.parts.items()}
        tensors = {name: tensor.detach() for name, tensor in self.networks.items()}
        network = Network("shared_mlp", dict.fromkeys(self.maps, self.recipe.count), tensors)
        found = ParameterComponents(parts, network, source="whence.demo", about=self._about())
        fresh = documents(document_seed("measure", self.seed), self.recipe.held_out, self.recipe.context, self.vocab)
        _, inputs = observed(self.model, self.maps, fresh)
        said = found.importances(inputs, torch.arange(len(fresh)))
        return found.kept({site: (c > 0).flatten(0, 1).any(0) for site, c in said.items()})

    def _about(self) -> dict[str, Any]:
        spent = round(time.process_time() - self.began)
        return {"seed": self.seed, "cpu_seconds": spent, "recipe": asdict(self.recipe)}
