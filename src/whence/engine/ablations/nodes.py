"""The metric when some units say what this run makes them say, and all others what a baseline says.

    site by site, in forward order:   a = split(what arrives),   x = join(a where kept, the baseline where not)

so that what is ablated early changes what arrives later. Errors are units like others, or all kept, or all ablated.
Some sites are left alone: those below a layer, and token embeddings as whole vectors, which no dictionary has taken
apart. Cost: a forward pass for the examples, one for the patch prompts, and one for every choice of units. Knows
nothing of edges, and nothing of ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from whence.engine.ablations.selecting import Placed
from whence.engine.circuits.baseline import Baseline
from whence.engine.circuits.examples import Examples, Part
from whence.engine.circuits.measure import metric_of
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.state import State, look
from whence.engine.circuits.units import Said, Units
from whence.progress import Progress


@dataclass(frozen=True)
class Rules:
    """What is not decided node by node."""

    errors: str  # "default", "keep" or "remove"
    embeddings: str  # "keep" or "default"
    start_layer: int
    slots: int  # of the circuit

    def alone(self, site: CircuitSite) -> bool:
        """Whether a site is left as it is."""
        if site.layer is None and self.embeddings == "keep":
            return True
        return (site.layer or 0) < self.start_layer

    def count(self, site: CircuitSite, units: Bool[Tensor, "slot unit"]) -> Bool[Tensor, "slot unit"]:
        """Those of the units that are decided node by node."""
        return units & False if self.alone(site) else self._with_errors(site.units, units, False)

    def decided(self, units: Units, kept: Bool[Tensor, "slot unit"]) -> Bool[Tensor, "slot unit"]:
        """A choice of units with the errors as they are wanted."""
        return self._with_errors(units, kept, self.errors == "keep")

    def _with_errors(self, units: Units, kept: Tensor, value: bool) -> Tensor:
        error = error_of(units)
        if self.errors == "default" or error is None:
            return kept
        kept = kept.clone()
        kept[:, error] = value
        return kept


def error_of(units: Units) -> int | None:
    """The number of a site's error; None where nothing is missed."""
    last = units.count - 1
    return last if units.name(last)[0] == "error" else None


@dataclass(frozen=True, eq=False)
class Run:
    """Some examples, about to be run with units ablated."""

    network: Network
    part: Part
    slot: Int[Tensor, "example pos"]  # the circuit's
    clean: State
    gone: dict[CircuitSite, Said]  # what units say when they are ablated


@runtime_checkable
class Choice(Protocol):
    """What of a model is kept."""

    def final(self, run: Run) -> Float[Tensor, "example pos d_model"]:
        """The last stream with everything else ablated."""
        ...


@dataclass(frozen=True, eq=False)
class NodeChoice:
    """Units that are kept, slot by slot; a site that is not here is left alone."""

    kept: dict[CircuitSite, Bool[Tensor, "slot unit"]]

    def final(self, run: Run) -> Float[Tensor, "example pos d_model"]:
        """The last stream with all other units ablated."""

        def edit(site: CircuitSite, value: Tensor, read: Tensor) -> Tensor | None:
            if site not in self.kept:
                return None
            units, kept = site.units, self.kept[site].to(value.device)
            return units.join(units.split(value, read).mixed(run.gone[site], units.mask(kept[run.slot])))

        return run.network.run(run.clean.calls, run.clean.calls.embedded, edit=edit)


def node_choice(
    network: Network, nodes: dict[CircuitSite, Placed], rules: Rules, *, complement: bool = False
) -> NodeChoice:
    """A circuit's nodes, or all but them.

    Args:
        network: the model and its sites.
        nodes: the circuit's.
        rules: of errors, embeddings and lower layers; they hold for the complement as well.
        complement: whether the nodes are what is ablated.
    """
    kept: dict[CircuitSite, Tensor] = {}
    for site in network.sites:
        if not rules.alone(site):
            mask = mask_at(site, nodes, rules)
            kept[site] = rules.decided(site.units, ~mask if complement else mask)
    return NodeChoice(kept)


def mask_at(site: CircuitSite, nodes: dict[CircuitSite, Placed], rules: Rules) -> Bool[Tensor, "slot unit"]:
    """The nodes of a site; ends of heads are no units of their own."""
    if site not in nodes:
        return torch.zeros(rules.slots, site.units.count, dtype=torch.bool)
    here = nodes[site]
    return here.where(here.end < 0).mask(rules.slots, site.units.count)


@dataclass(frozen=True, eq=False)
class Measured:
    """The metric of each example, and which units say something."""

    model: Float64[Tensor, " example"]
    chosen: Float64[Tensor, "choice example"]
    active: dict[CircuitSite, Bool[Tensor, "slot unit"]]  # other than nothing, on some token of a slot


@torch.no_grad()
def measured(
    network: Network,
    examples: Examples,
    choices: Sequence[Choice],
    baseline: Baseline,
    slots: Int[Tensor, " slot"],
    rules: Rules,
    batch_size: int,
    progress: Progress,
) -> Measured:
    """The metric of the model as it is, and of each choice.

    Args:
        network: the model and its sites; must be running.
        examples: all of them.
        choices: what is kept, one after the other.
        baseline: what everything else is put to.
        slots: the circuit's slot for each slot of the examples.
        rules: give the number of the circuit's slots.
        batch_size: examples at a time.
        progress: told of examples done.
    """
    active = {site: torch.zeros(rules.slots, site.units.count, dtype=torch.bool) for site in network.sites}
    own: list[Tensor] = []
    chosen: list[Tensor] = []
    for part in examples.parts(batch_size):
        run = _run(network, part, baseline, slots)
        _see(run, active)
        own.append(_metric(run, examples, run.clean.final))
        chosen.append(torch.stack([_metric(run, examples, choice.final(run)) for choice in choices]))
        progress("ablation", int(part.example[-1]) + 1, len(examples))
    return Measured(torch.cat(own), torch.cat(chosen, 1), active)


def _run(network: Network, part: Part, baseline: Baseline, slots: Tensor) -> Run:
    clean = look(network, network.calls(part.clean))
    network.check(clean.calls, network.logits(clean.calls, clean.final))
    slot = slots.to(part.slot.device)[part.slot.clamp_min(0)]  # what padding says reaches no token before it
    return Run(network, part, slot, clean, baseline.said(network, part, clean))


def _metric(run: Run, examples: Examples, final: Tensor) -> Float64[Tensor, " example"]:
    return metric_of(run.network, examples.measure, run.clean.calls, final, run.part.example).double().cpu()


def _see(run: Run, active: dict[CircuitSite, Tensor]) -> None:
    """Note the units that say something."""
    real = run.part.slot >= 0
    for site, said in run.clean.said.items():
        every = torch.arange(site.units.count, device=real.device)
        says = site.units.moved(said, every)[real].cpu()
        slot = run.slot[real].cpu()
        for one in slot.unique().tolist():
            active[site][one] |= says[slot == one].any(0)
