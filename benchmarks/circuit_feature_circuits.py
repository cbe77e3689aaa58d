"""feature-circuits' side of circuit.py: a worker, run in the peer's environment.

Arguments: the setup's folder, threads, the peer's checkout, the label of one of `circuit_table.PEERS`.

Node effects are its `get_circuit(nodes_only=True)`; edges are its `get_circuit` at a threshold, handed the node effects
that were found before instead of finding them again. `aggregation="none"`, so that positions can be compared. With
`frozen` weights ask for no gradient but what the peer's hooks need: every autoencoder's decoder bias, which keeps
features in the graph and lets a backward pass end at the upstream site, and in one call the output bias of the MLP
whose gradient that call stops. The pairs go through in batches of the setting's size.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_model import Setup, load_setup
from circuit_nnsight import autoencoders, language_model
from circuit_table import PEERS, Setting
from graph_bound import gemm
from measuring import Case, serve

Circuit = tuple[dict[str, Any], dict[str, dict[str, Tensor]]]  # nodes and edges by name


@dataclass
class Peer:
    """The model in nnsight, an autoencoder a site, the peer's module, what it is asked, and node effects by batch."""

    model: Any
    dictionaries: dict[Any, Any]
    module: Any
    setup: Setup
    batch: int
    effects: list[Any] = field(default_factory=list)

    def circuits(self, **options: Any) -> list[Circuit]:
        """`get_circuit` of every batch."""
        starts = range(0, self.setup.shape.pairs, self.batch)
        batches = [slice(start, start + self.batch) for start in starts]
        return [self.module.get_circuit(*self.asked(rows), aggregation="none", **options) for rows in batches]

    def asked(self, rows: slice) -> tuple[Any, ...]:
        """What `get_circuit` takes by position."""
        setup, sites = self.setup, list(self.dictionaries)
        bad, good = setup.patch_answers[rows, None], setup.clean_answers[rows, None]

        def metric(model: Any) -> Any:
            logits = model.output.logits[:, -1, :]
            return (torch.gather(logits, 1, bad) - torch.gather(logits, 1, good)).squeeze(-1)

        kinds = sites[0], sites[1::3], sites[2::3], sites[3::3]
        return setup.clean[rows].tolist(), setup.patch[rows].tolist(), self.model, *kinds, self.dictionaries, metric

    def find_effects(self) -> list[Any]:
        """Node effects of every batch, kept for the edges."""
        found: list[Any] = []
        real = self.module.patching_effect

        def keep(*given: Any, **options: Any) -> Any:
            found.append(real(*given, **options))
            return found[-1]

        self.module.patching_effect = keep
        self.circuits(nodes_only=True)
        self.module.patching_effect = real
        self.effects = found
        return found

    def find_edges(self, kept: int) -> list[Circuit]:
        """Circuits at the threshold that keeps so many triples a site, with known node effects."""
        known, real = iter(self.effects), self.module.patching_effect
        self.module.patching_effect = lambda *_, **__: next(known)
        found = self.circuits(parallel_attn=True, node_threshold=self.setup.thresholds[kept])
        self.module.patching_effect = real
        return found


# ------------------------------------------------------------ loading
def load(folder: Path, checkout: Path, setting: Setting) -> Peer:
    """The saved model and autoencoders."""
    sys.path.insert(0, str(checkout))
    setup = load_setup(folder)
    model = language_model(folder, setup)
    peer = Peer(model, autoencoders(model, folder, setup), importlib.import_module("circuit"), setup, setting.batch)
    if setting.frozen:
        freeze(peer)
    return peer


def freeze(peer: Peer) -> None:
    """Ask for the gradients alone that the peer's hooks need."""
    for one in (peer.model._model, *peer.dictionaries.values()):
        one.requires_grad_(requires_grad=False)
    for one in peer.dictionaries.values():
        one.bias.requires_grad_()
    real: Callable[..., Tensor] = peer.module.jvp

    def jvp(*given: Any, intermediate_stopgrads: list[Any]) -> Tensor:
        stopped = [one.submodule for one in intermediate_stopgrads if one.name.startswith("mlp")]
        biases = [one._module.dense_4h_to_h.bias.requires_grad_() for one in stopped]
        found = real(*given, intermediate_stopgrads=intermediate_stopgrads)
        for bias in biases:
            bias.requires_grad_(requires_grad=False)
        return found

    peer.module.jvp = jvp


# ------------------------------------------------------------ what is compared
def effect_tensors(found: list[Any], sites: list[Any]) -> dict[str, Tensor]:
    """Node effects, [pair, position, feature + 1] a site, the error last."""
    return {site.name: torch.cat([one.effects[site].to_tensor() for one in found]).detach() for site in sites}


def edge_tensors(peer: Peer, circuits: list[Circuit], kept: int) -> dict[str, Tensor]:
    """Edges between kept nodes, pair by pair: source and target [entry, 4] as (pair, site, position, feature), weight.

    Only where the pairs go through one by one: the peer returns means over a batch.
    """
    if peer.batch != 1:
        return {}
    names, limit = peer.setup.shape.sites, peer.setup.thresholds[kept]
    effects = effect_tensors(peer.effects, list(peer.dictionaries))
    rows: list[Tensor] = []
    weights: list[Tensor] = []
    for pair, (_, edges) in enumerate(circuits):
        for up, ends in edges.items():
            sources = (effects[up][pair].abs() > limit).nonzero()
            for down, stored in ends.items():
                if down == "y" or not stored.coalesce().indices().numel():
                    continue
                targets, values = stored.coalesce().indices().T, stored.coalesce().values()
                at = torch.cartesian_prod(torch.arange(len(targets)), torch.arange(len(sources)))
                source, target = sources[at[:, 1]], targets[at[:, 0]]
                places = [torch.tensor([pair, names.index(name)]).expand(len(at), 2) for name in (up, down)]
                rows.append(torch.cat([places[0], source, places[1], target], dim=1))
                weights.append(values[at[:, 0], source[:, 0], source[:, 1]])
    entries = torch.cat(rows)
    return {"source": entries[:, :4], "target": entries[:, 4:], "weight": torch.cat(weights).detach()}


def nbytes(circuits: list[Circuit]) -> int:
    """What the caller gets: the edges' rows."""
    stored = [one for _, edges in circuits for ends in edges.values() for one in ends.values()]
    return sum(one._values().nbytes for one in stored)


def main() -> None:
    """Load the model, find node effects so that everything is resident, and wait for requests."""
    folder, threads, checkout = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    setting = next(one for one in PEERS if one.label == sys.argv[4])
    torch.set_num_threads(threads)
    peer = load(folder, checkout, setting)
    peer.find_effects()
    sites = list(peer.dictionaries)
    cases = {
        f"edges {kept}": Case(
            lambda kept=kept: peer.find_edges(kept), nbytes, lambda found, kept=kept: edge_tensors(peer, found, kept)
        )
        for kept in peer.setup.shape.kept
    }
    cases["effects"] = Case(
        peer.find_effects,
        lambda found: sum(one.nbytes for one in effect_tensors(found, sites).values()),
        lambda found: effect_tensors(found, sites),
    )
    cases["gemm"] = Case(gemm, lambda tensor: tensor.nbytes)
    serve(cases, {name: version(name) for name in ("nnsight", "dictionary-learning", "torch", "transformers")})


if __name__ == "__main__":
    main()
