"""Small circuits found by whence in one piece: every unit a node, so that edges can be held against dense tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circuit_oracle import Oracle
from circuit_parts import Part, native_parts, sae_part, transcoder_part
from families import fresh, model_type
from whence.components.activation import Activation
from whence.components.sae import SAE
from whence.components.sites import Site
from whence.components.transcoder import Transcoder
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.edges import Kept, Linear, Tables, direct_edges
from whence.engine.circuits.effects import Asked, contracted, gradients
from whence.engine.circuits.measure import answers_measure
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.state import look
from whence.model.model import Model

CLEAN, PATCH = torch.tensor([5, 6]), torch.tensor([7, 8])  # answers


class Wide(TorchFunctionMode):
    """While inside, what a float64 model computes in float32 (softmax, RMSNorm) stays in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is torch.nn.functional.softmax:
                kwargs.pop("dtype", None)
            elif func is Tensor.float or (func is Tensor.to and args[1:] == (torch.float32,)):
                return args[0]
        return func(*args, **kwargs)


def metric(logits: Tensor) -> Tensor:
    """logit[patch answer] - logit[clean answer]."""
    line = torch.arange(len(logits))
    return logits[line, PATCH[: len(logits)]] - logits[line, CLEAN[: len(logits)]]


def pairs(length: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Two prompts, and the same with another second token."""
    generator = torch.Generator().manual_seed(seed)
    ids, other = (torch.randint(4, 60, (2, length), generator=generator) for _ in range(2))
    return ids, torch.cat([ids[:, :1], other[:, 1:2], ids[:, 2:]], 1)


def random_saes(
    layers: Sequence[int],
    widths: dict[Site, int],
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    activation: Callable[[int], Activation] = lambda _: Activation("relu"),
) -> list[SAE]:
    """SAEs with biases, a different number of features at each site, of the asked vector widths."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, dtype=dtype, generator=generator)  # noqa: E731
    found: list[SAE] = []
    for layer in layers:
        for site, d in widths.items():
            n = 10 + 2 * (len(found) % 4)
            enc, dec = normal(n, d) / d**0.5, normal(n, d) / d**0.5
            found.append(SAE(layer, enc, 0.2 * normal(n), dec, 0.2 * normal(d), activation(n), site))
    return found


def random_transcoders(layers: Sequence[int], d: int, skip: bool = False, **sites: Any) -> list[Transcoder]:
    """Transcoders likewise."""
    skips = torch.randn(len(layers), d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(9)) / d
    return [
        Transcoder(
            *(one.layer, one.W_enc, one.b_enc, one.W_dec, one.b_dec, one.activation),
            W_skip=skips[number] if skip else None,
            **sites,
        )
        for number, one in enumerate(random_saes(layers, {"mlp_out": d}, 5))
    ]


def small(name: str, layers: int = 2, **settings: Any) -> Model:
    """A model of two layers in float64, with the attention that tells its patterns."""
    length = "n_layer" if model_type(name) == "gpt2" else "num_hidden_layers"
    return Model(fresh(name, torch.float64, **{length: layers, "attn_implementation": "eager"}, **settings))


def oracle(model: Model, dictionaries: Sequence[Any]) -> Oracle:
    """The slow answers for the same sites."""
    parts: list[Part] = []
    for one in dictionaries:
        if isinstance(one, str):
            parts += native_parts(model.hf, one, model.n_layers)
        else:
            parts.append((sae_part if isinstance(one, SAE) else transcoder_part)(model.hf, one))
    if all("embed" not in part.key for part in parts):
        parts += native_parts(model.hf, "embed", model.n_layers)
    return Oracle(model.hf, tuple(parts), metric)


@dataclass(frozen=True, eq=False)
class Solved:
    """What whence finds."""

    network: Network
    asked: Asked
    gradient: dict[CircuitSite, Tensor]
    final: Tensor
    effects: dict[CircuitSite, Tensor]
    tables: Tables

    def site(self, key: str) -> CircuitSite:
        """By its name."""
        return next(site for site in self.network.sites if site.key == key)

    def edges(self, source: str, target: str | None) -> Tensor:
        """[example, target pos * unit, pos, unit]."""
        up, down = self.site(source), None if target is None else self.site(target)
        examples, length = self.final.shape[:2]
        rows = 1 if down is None else length * down.units.count
        out = torch.zeros(examples, rows, length * up.units.count, dtype=self.final.dtype)
        table = self.tables.get((down, up))
        if table is not None:
            index, weight = table.entries()
            out[tuple(index)] = weight
        return out.unflatten(-1, (length, -1))

    def out_sum_error(self) -> float:
        """How far the out-edges of a unit are from summing to its effect; by the largest effect."""
        worst = 0.0
        for site in self.network.sites:
            total = sum(self.edges(site.key, None if d is None else d.key).sum(1) for d in (None, *self.network.sites))
            worst = max(worst, float((total - self.effects[site]).abs().max()))
        return worst / max(float(effect.abs().max()) for effect in self.effects.values())


def every_unit(network: Network, like: Tensor) -> dict[CircuitSite, Kept]:
    """All units at all tokens, each a node: pos * units + unit."""
    examples, length = like.shape[:2]
    found: dict[CircuitSite, Kept] = {}
    for site in network.sites:
        n = site.units.count
        number = torch.arange(length * n).view(1, length, n).expand(examples, -1, -1)
        found[site] = Kept(torch.arange(n), number, length * n)
    return found


def asked_of(model: Model, dictionaries: Any, ids: Any, other: Any, network: Network | None = None) -> Asked:
    """A batch and its baseline; inside `running`."""
    network = network_of(model, dictionaries) if network is None else network
    batch = model.batch(ids)
    state, patch = (look(network, network.calls(model.batch(one))) for one in (ids, other))
    network.check(state.calls, network.logits(state.calls, state.final))
    delta = {site: patch.said[site].minus(state.said[site]) for site in network.sites}
    return Asked(network, state, delta, answers_measure(CLEAN, PATCH), torch.arange(len(batch.ids)))


def solved(model: Model, dictionaries: Any, ids: Any, other: Any) -> Solved:
    """Effects by gradient, and all direct edges."""
    network = network_of(model, dictionaries)
    with network.running():
        asked = asked_of(model, dictionaries, ids, other, network)
        gradient, final = gradients(asked)
        kept = every_unit(network, final)
        tables = direct_edges(Linear(network, asked.clean, gradient, final, asked.delta, kept))
        return Solved(network, asked, gradient, final, contracted(asked, gradient), tables)
