"""whence's side of circuit.py: a worker. Arguments: the setup's folder, threads.

`gate="per_example"` and `aggregate="none"`, so that nodes and edges mean what the peer's mean. Attribution patching
keeps what the setup's thresholds keep; other methods get thresholds from their own effects, which keep as many.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPTNeoXForCausalLM

import whence
from circuit_effects import threshold
from circuit_model import Setup, load_dictionaries, load_setup
from graph_bound import gemm
from measuring import Case, serve
from whence.components.activation import Activation
from whence.components.sets import DictionarySet
from whence.components.sites import Site
from whence.results.nodes import NodeTable
from whence.targets.pairs import Pairs

METHODS: dict[str, dict[str, Any]] = {
    "gradient": {"method": "gradient"},
    "midpoint": {"method": "integrated_gradients", "steps": 10, "rule": "midpoint"},
    "left": {"method": "integrated_gradients", "steps": 10, "rule": "left"},
}
SITES: dict[str, Site] = {"embed": "embed", "attn": "attn_out", "mlp": "mlp_out", "resid": "resid_post"}


class Ours:
    """The model, its dictionaries and the pairs."""

    def __init__(self, folder: Path) -> None:
        self.setup = load_setup(folder)
        self.model = whence.Model(GPTNeoXForCausalLM.from_pretrained(folder / "model").eval())
        self.dictionaries = sets(folder, self.setup)
        self.pairs = pairs(self.setup)
        self.limits = {"gradient": self.setup.thresholds}
        self.limits |= {name: self.own_limits(name) for name in METHODS if name != "gradient"}

    def own_limits(self, name: str) -> dict[int, float]:
        """Thresholds on a method's own effects."""
        effects = self.circuit(name, max(self.setup.thresholds.values()), edges=False).samples.effect
        shape = self.setup.shape
        return {kept: threshold(effects, kept * len(shape.sites)) for kept in shape.kept}

    def circuit(self, name: str, limit: float, *, edges: bool) -> Any:
        """Nodes, and edges if asked for, by one of the methods."""
        return whence.feature_circuit(
            self.model, self.dictionaries, self.pairs, gate="per_example", aggregate="none", edges=edges,
            node_threshold=limit, edge_threshold=0.0, **METHODS[name],
        )  # fmt: skip


# ------------------------------------------------------------ what is asked
def sets(folder: Path, setup: Setup) -> list[DictionarySet]:
    """The autoencoders, a set a kind of site. The peer's read x less the decoder's bias."""
    found: dict[Site, list[whence.SAE]] = {}
    for name, one in load_dictionaries(folder, setup.shape).items():
        kind, _, layer = name.partition("_")
        reads = one["encoder.bias"] - one["encoder.weight"] @ one["bias"]
        parts = one["encoder.weight"], reads, one["decoder.weight"].T.contiguous(), one["bias"]
        made = whence.SAE(int(layer or 0), *parts, Activation("relu"), SITES[kind])
        found.setdefault(SITES[kind], []).append(made)
    return [DictionarySet(tuple(ones)) for ones in found.values()]


def pairs(setup: Setup) -> Pairs:
    """The prompts, every position a slot."""
    ids = [tuple(map(tuple, one.tolist())) for one in (setup.clean, setup.patch)]
    answers = [tuple(one.tolist()) for one in (setup.clean_answers, setup.patch_answers)]
    slots = tuple(str(position) for position in range(setup.shape.length))
    return Pairs(*ids, *answers, slots=(slots,) * setup.shape.pairs, order=slots)


# ------------------------------------------------------------ what is compared
def places(nodes: NodeTable, setup: Setup) -> Tensor:
    """Site, position and feature of every node, [node, 3]; the error is the last feature; −1 for the metric."""
    numbers = {name: number for number, name in enumerate(setup.shape.sites)}
    kinds = {site: kind for kind, site in SITES.items()}
    rows: list[tuple[int, int, int]] = []
    for node in nodes:
        place, _, unit = node.name.partition(".")
        if place not in kinds:
            rows.append((-1, -1, -1))
            continue
        site = place if place == "embed" else f"{kinds[place]}_{node.layer}"
        feature = setup.shape.features if unit == "error" else node.index
        rows.append((numbers[site], node.position, feature))
    return torch.tensor(rows)


def effect_tensors(circuit: Any, setup: Setup) -> dict[str, Tensor]:
    """Node effects, [pair, position, feature + 1] a site, the error last."""
    shape, samples = setup.shape, circuit.samples
    table = torch.zeros(len(shape.sites), shape.pairs, shape.length, shape.features + 1)
    site, position, feature = places(samples.candidates, setup)[samples.candidate].T
    table[site, samples.example, position, feature] = samples.effect
    return dict(zip(shape.sites, table, strict=True))


def edge_tensors(circuit: Any, setup: Setup) -> dict[str, Tensor]:
    """Edges pair by pair: source and target [entry, 4] as (pair, site, position, feature), and weight."""
    samples, where = circuit.samples, places(circuit.nodes, setup)
    pair, edge = (samples.edge != 0).nonzero().T
    ends = {"source": where[samples.source[edge]], "target": where[samples.target[edge]]}
    found = {name: torch.cat([pair[:, None], place], dim=1) for name, place in ends.items()}
    return found | {"weight": samples.edge[pair, edge]}


def main() -> None:
    """Load the model, find small circuits so that everything is resident, and wait for requests."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    ours = Ours(folder)
    setup, least = ours.setup, ours.setup.shape.kept[0]
    ours.circuit("gradient", setup.thresholds[least], edges=True)

    def case(name: str, kept: int, *, edges: bool) -> Case:
        read = edge_tensors if edges else effect_tensors
        return Case(
            lambda: ours.circuit(name, ours.limits[name][kept], edges=edges), nbytes, lambda found: read(found, setup)
        )

    cases = {f"effects {name}": case(name, least, edges=False) for name in METHODS}
    for kept in setup.shape.kept:
        cases |= {f"circuit {name} {kept}": case(name, kept, edges=True) for name in ("gradient", "midpoint")}
    cases["gemm"] = Case(gemm, lambda tensor: tensor.nbytes)
    serve(cases, {name: version(name) for name in ("whence", "torch", "transformers")})


def nbytes(circuit: Any) -> int:
    """What the caller gets: effects and edges of every pair."""
    return circuit.samples.effect.nbytes + circuit.samples.edge.nbytes


if __name__ == "__main__":
    main()
