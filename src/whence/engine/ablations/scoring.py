"""Scores of circuits: the metric of the model, of nothing and of every circuit, on the same examples.

One model run a batch of examples gives m(M), one m(0), and one each circuit and kind of score. Every circuit is scored
under the same rules, and counted under them: a node that the rules keep or remove anyway is no one's merit. Cost: that
of the runs. Knows nothing of how circuits are cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from whence.engine.ablations.edges import EdgeChoice
from whence.engine.ablations.listening import hearing_of
from whence.engine.ablations.nodes import (
    Choice,
    Measured,
    Rules,
    mask_at,
    measured,
    node_choice,
)
from whence.engine.ablations.selecting import Placed, placed, slots_of
from whence.engine.circuits.baseline import baseline_of
from whence.engine.circuits.checks import counts, one_of
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.examples import Examples, examples_of
from whence.engine.circuits.network import CircuitSite, Network
from whence.model.model import Model
from whence.progress import Progress
from whence.results.circuit_faithfulness import CircuitScore, Kind
from whence.results.circuit_parts import CircuitParts
from whence.results.circuit_sizes import inside
from whence.targets.pairs import Pairs

Ablation = Literal["mean", "zero", "resample"]
Errors = Literal["default", "keep", "remove"]
Embeddings = Literal["keep", "default"]
_CHOICES = {"ablation": get_args(Ablation), "errors": get_args(Errors), "embeddings": get_args(Embeddings)}


@dataclass(frozen=True, eq=False)
class WantedScore:
    """A score that is wanted."""

    circuit: CircuitParts
    nodes: dict[CircuitSite, Placed]
    kind: Kind


@dataclass(frozen=True, eq=False)
class Scoring:
    """What circuits are scored on, and how.

    Raises:
        ValueError: a choice there is none of. TypeError: pairs that are none.
    """

    model: Model
    dictionaries: Any
    pairs: Any
    metric: Any
    ablation: str
    errors: str
    embeddings: str
    edges: bool
    start_layer: int
    batch_size: int
    progress: Progress

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        one_of({name: (getattr(self, name), choices) for name, choices in _CHOICES.items()})
        counts(batch_size=self.batch_size)
        if self.start_layer < 0:
            raise ValueError(f"start_layer={self.start_layer}; it is at least 0")
        if not isinstance(self.pairs, Pairs):
            raise TypeError(f"pairs= is {type(self.pairs).__name__}; give whence.Pairs, e.g. from whence.load_pairs")
        if self.ablation == "resample" and self.pairs.patch is None:
            raise ValueError("ablation='resample' needs patch prompts; give pairs with them, or ablation='mean'")

    def scores(self, circuits: Sequence[CircuitParts], kinds: Sequence[Kind]) -> list[CircuitScore]:
        """The scores of each circuit, kind by kind; all circuits have the same slots."""
        network, slots = network_of(self.model, self.dictionaries), circuits[0].slots
        rules = Rules(self.errors, self.embeddings, self.start_layer, len(slots) or 1)
        placings = [(circuit, placed(network, circuit.nodes)) for circuit in circuits]
        wanted = [WantedScore(circuit, nodes, kind) for circuit, nodes in placings for kind in kinds]
        found = self._measured(network, rules, wanted, slots)
        return [self._score(rules, found, number, one) for number, one in enumerate(wanted)]

    def _measured(
        self, network: Network, rules: Rules, wanted: Sequence[WantedScore], slots: tuple[str, ...]
    ) -> Measured:
        """The metric of nothing, then of each score's choice."""
        examples = self._examples()
        choices = [node_choice(network, {}, rules), *(self._choice(network, rules, one) for one in wanted)]
        kind = "patch" if self.ablation == "resample" else self.ablation
        with network.running():
            away = baseline_of(network, examples, kind, self.batch_size)
            where = slots_of(slots, examples)
            return measured(network, examples, choices, away, where, rules, self.batch_size, self.progress)

    def _examples(self) -> Examples:
        """The pairs, position by position where they align."""
        aligned = self.pairs.slots is not None or len({*self.pairs.lengths}) == 1
        return examples_of(self.model, self.pairs, None, self.metric, aligned=aligned)

    def _choice(self, network: Network, rules: Rules, one: WantedScore) -> Choice:
        complement = one.kind == "completeness"
        if self.edges:
            return EdgeChoice(hearing_of(network, one.circuit, one.nodes, rules, complement=complement))
        return node_choice(network, one.nodes, rules, complement=complement)

    def _score(self, rules: Rules, found: Measured, number: int, one: WantedScore) -> CircuitScore:
        active = {site: rules.count(site, says) for site, says in found.active.items()}
        mine = {site: rules.count(site, mask_at(site, one.nodes, rules)) for site in active}
        return CircuitScore(
            kind=one.kind,
            chosen=found.chosen[number + 1],
            empty=found.chosen[0],
            model=found.model,
            nodes=sum(int(nodes.sum()) for nodes in mine.values()),
            edges=_edges(rules, one) if self.edges else None,
            active=sum(int(says.sum()) for says in active.values()),
            active_nodes=sum(int((mine[site] & says).sum()) for site, says in active.items()),
            settings={name: getattr(self, name) for name in (*_CHOICES, "start_layer")} | {"pairs": self.pairs.source},
        )


def _edges(rules: Rules, one: WantedScore) -> int:
    """How many edges of a circuit are decided edge by edge: both ends are."""
    decided = torch.zeros(len(one.circuit.nodes), dtype=torch.bool)
    decided[-1] = True
    for site, here in one.nodes.items():
        counted = rules.count(site, torch.ones(rules.slots, site.units.count, dtype=torch.bool))
        decided[here.number] = counted[here.slot, here.unit]
    target, source, _ = one.circuit.weights.coo()
    return int((decided[target] & decided[source] & ~inside(one.circuit, target, source)).sum())
