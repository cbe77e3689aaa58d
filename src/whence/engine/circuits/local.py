"""Edges between two sites at single tokens: their effects, and the gradients before a difference is contracted.

    effects      the direct edges of `edges`; with some sites left out of the network, the paths through them as well
    gradients    from each target the covector c_dᵀ J in the stream behind the source, then through the source's tail to
                 its vector, and from there to every coordinate:  features by their decoder rows, vectors as they are

Both start at the same rows and walk the same stretch; attentions are met in the middle for effects and gone through for
gradients, so that one checks the other. Cost: for effects rows of targets and of sources; for gradients one field over
the positions a target row. Knows nothing of results.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.block_units import BlockUnits
from whence.engine.circuits.edges import AnyRows, EdgeWalk, Kept, Linear
from whence.engine.circuits.effects import Asked
from whence.engine.circuits.joins import Rows, WideRows, widened
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.pulling import pull_tail
from whence.engine.circuits.units import Said, Units

ROWS_AT_ONCE = 256
Chosen = dict[CircuitSite, Int[Tensor, " unit"]]
NOTHING = torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Local:
    """Some examples, and the metric's gradients at their clean points."""

    asked: Asked
    gradient: dict[CircuitSite, Tensor]
    metric: Float[Tensor, "example pos d_model"]

    @property
    def length(self) -> int:
        """Positions, with padding."""
        return self.metric.shape[1]


@dataclass(frozen=True, eq=False)
class Entries:
    """Numbers of some examples; units are counted among those chosen, and of a gradient's source their coordinates."""

    index: Int[Tensor, "5 entry"]  # example, target position, target unit, source position, source unit
    value: Float[Tensor, " entry"]


def without(network: Network, sites: list[CircuitSite]) -> Network:
    """The same model with fewer sites: what passes through the others is no longer held."""
    return replace(network, sites=tuple(site for site in network.sites if site not in sites))


def unit_names(site: CircuitSite, chosen: Int[Tensor, " unit"]) -> tuple[str, ...]:
    """Keys of units: "1.resid_post.feature:7", "1.resid_post.error", "2.mlp"."""

    def end(unit: int) -> str:
        name, index = site.units.name(unit)
        return name if index is None else f"{name}:{index}"

    return tuple(f"{site.key}.{end(unit)}".removesuffix(".") for unit in chosen.tolist())


def coordinate_names(site: CircuitSite, said: Said, chosen: Int[Tensor, " unit"]) -> tuple[str, ...]:
    """Keys of features, and of vectors' coordinates: "1.resid_post.error[3]"."""
    names = dict(zip(chosen.tolist(), unit_names(site, chosen), strict=True))
    features, width = said.features.shape[-1], site.units.width
    size = width // site.units.count if isinstance(site.units, BlockUnits) else width
    coordinates = coordinates_in(site, said, chosen)
    of = unit_of(site.units, said)[coordinates].tolist()
    place = ((coordinates - features) % size).tolist()
    return tuple(names[u] if u < features else f"{names[u]}[{at}]" for u, at in zip(of, place, strict=True))


@torch.no_grad()
def local_effects(
    local: Local, network: Network, target: CircuitSite | None, source: CircuitSite, chosen: Chosen
) -> Entries:
    """Edges between chosen units of two sites.

    Args:
        local: the examples.
        network: with the sites that are held.
        target: where edges lead; None for the metric.
        source: where they begin.
        chosen: units of both sites.
    """
    walk = EdgeWalk(_linear(local, network, {site: chosen[site] for site in (target, source) if site is not None}))
    walk.into(target)
    table = walk.tables.get((target, source))
    if table is None:
        return Entries(torch.zeros(5, 0, dtype=torch.long), local.metric.new_zeros(0))
    (example, down, up), value = table.entries()
    places = (example, *_place(local, down, example, target, chosen), *_place(local, up, example, source, chosen))
    return Entries(torch.stack(places).cpu(), value.cpu())


@torch.no_grad()
def local_gradients(local: Local, target: CircuitSite | None, source: CircuitSite, chosen: Chosen) -> Entries:
    """What a step of each coordinate of the source does by way of chosen units of the target, directly.

    Args:
        local: the examples.
        target: where edges lead; None for the metric.
        source: where they begin.
        chosen: units of the target, and of the source those whose coordinates are asked for.
    """
    network = local.asked.network
    walk = _Reaching(_linear(local, network, {} if target is None else {target: chosen[target]}), source)
    walk.into(target)
    mask = local.asked.clean.calls.batch.mask
    wanted = coordinates_in(source, local.asked.delta[source], chosen[source])
    parts = [Entries(torch.zeros(5, 0, dtype=torch.long), local.metric.new_zeros(0))]
    for rows in walk.found:
        for here in torch.arange(len(rows), device=mask.device).split(ROWS_AT_ONCE):
            example, field = rows.example[here], rows.field[here]
            said = _coordinates(source, local, example, field)[..., wanted] * mask[example][..., None]
            row, position, coordinate = said.nonzero(as_tuple=True)
            down = _place(local, rows.node[here][row], example[row], target, chosen)
            index = torch.stack([example[row], *down, position, coordinate])
            parts.append(Entries(index.cpu(), said[row, position, coordinate].cpu()))
    return Entries(torch.cat([one.index for one in parts], 1), torch.cat([one.value for one in parts]))


def unit_of(units: Units, said: Said) -> Int[Tensor, " coordinate"]:
    """The unit that each coordinate belongs to: features, then vectors."""
    features, (vectors, width) = said.features.shape[-1], said.vectors.shape[-2:]
    device = said.vectors.device
    if isinstance(units, BlockUnits):
        return torch.arange(width, device=device) // (width // units.count)
    rest = features + torch.arange(vectors, device=device).repeat_interleave(width)
    return torch.cat([torch.arange(features, device=device), rest])


def coordinates_in(site: CircuitSite, said: Said, chosen: Int[Tensor, " unit"]) -> Int[Tensor, " coordinate"]:
    """The coordinates of some units, in order."""
    return torch.isin(unit_of(site.units, said), chosen.to(said.vectors.device)).nonzero()[:, 0]


def difference_of(local: Local, site: CircuitSite) -> Float[Tensor, "example pos coordinate"]:
    """Baseline minus clean of every coordinate."""
    said = local.asked.delta[site]
    return torch.cat([said.features, said.vectors.flatten(-2)], -1)


def _coordinates(source: CircuitSite, local: Local, example: Tensor, field: Tensor) -> Tensor:
    """[row, pos, coordinate]: covectors in the stream behind a site, at its units."""
    at_site = pull_tail(source, local.asked.clean, example, field)
    like = local.asked.delta[source]
    features, (vectors, _) = like.features.shape[-1], like.vectors.shape[-2:]
    ones = Said(torch.ones_like(like.features[example]), torch.zeros_like(like.vectors[example]))
    through = source.units.effects(at_site, ones)[..., :features]
    return torch.cat([through, at_site.repeat(1, 1, vectors)], -1)


def _linear(local: Local, network: Network, chosen: Chosen) -> Linear:
    """The examples with these units as nodes, one a position: position * units + place among them."""
    asked, mask = local.asked, local.asked.clean.calls.batch.mask
    kept: dict[CircuitSite, Kept] = {}
    for site in network.sites:
        unit = chosen.get(site, NOTHING).to(mask.device)
        count = local.length * len(unit)
        number = torch.arange(count, device=mask.device).view(1, local.length, -1).expand(len(mask), -1, -1)
        kept[site] = Kept(unit, torch.where(mask[..., None], number, -1), count)
    return Linear(network, asked.clean, local.gradient, local.metric, asked.delta, kept)


def _place(
    local: Local, number: Tensor, example: Tensor, site: CircuitSite | None, chosen: Chosen
) -> tuple[Tensor, Tensor]:
    """Position of nodes, and which of the chosen units they are; the metric is at the last token."""
    if site is None:
        return local.asked.clean.calls.batch.lengths.to(number.device)[example] - 1, torch.zeros_like(number)
    units = max(1, len(chosen[site]))
    return number // units, number % units


class _Reaching(EdgeWalk):
    """Keeps the covectors that arrive at one site."""

    def __init__(self, linear: Linear, source: CircuitSite) -> None:
        super().__init__(linear)
        self.source = source
        self.found: list[WideRows] = []

    def _join(self, target: CircuitSite | None, down: AnyRows, source: CircuitSite) -> None:
        if source is self.source:
            self.found.append(widened(down, self.length) if isinstance(down, Rows) else down)

    def _meets(self, point: int) -> bool:
        return False  # a covector is asked for, and meeting gives products
