"""LocalEdges: examples of which edges at single tokens can be asked, between any two sites.

Each question is answered anew from the forward pass that is kept: the stretch of model between the two sites, with all
other sites held, or with some of them live. Cost: rows of targets and of sources. Knows nothing of thresholds on edges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.engine.circuits.local import (
    Chosen,
    Entries,
    Local,
    coordinate_names,
    coordinates_in,
    difference_of,
    local_effects,
    local_gradients,
    unit_names,
    unit_of,
    without,
)
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.routes import between, check_between, check_direct, key_of, site_of
from whence.results.local_edges import EdgeEffects, EdgeGradients, Ends, IndirectEffects

Axes = dict[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class LocalEdges:
    """Examples with the metric's gradients, of which edges can be asked.

    Sites are named as in node keys: "1.resid_post", "0.attn_out", "2.mlp", "embed", and "metric" as a target.

    Example:
        >>> edges.sites  # doctest: +SKIP
        ('embed', '0.resid_post', '1.resid_post', 'metric')
    """

    _network: Network
    _parts: tuple[Local, ...]
    _chosen: Chosen
    _lengths: tuple[int, ...]

    def __repr__(self) -> str:
        return f"LocalEdges({len(self._lengths)} examples; {', '.join(self.sites)})"

    @property
    def sites(self) -> tuple[str, ...]:
        """Keys of the sites, in the order of the forward pass, and the metric."""
        return (*(site.key for site in self._network.sites), "metric")

    def between(self, source: str, target: str) -> tuple[str, ...]:
        """Keys of the sites that lie between two, which a direct edge holds.

        Args:
            source: key of the site that edges leave.
            target: key of the site that they lead to.

        Raises:
            ValueError: no such site.

        Example:
            >>> edges.between("0.resid_post", "1.resid_post")  # doctest: +SKIP
            ('1.attn_out', '1.mlp_out')
        """
        return tuple(site.key for site in between(self._network, *self._ends(source, target)))

    def effect(self, source: str, target: str) -> EdgeEffects:
        """What each source unit's difference does to the metric by way of each target unit, all sites between held.

        Args:
            source: key of the site that edges leave.
            target: key of the site that they lead to.

        Raises:
            ValueError: no such site, or no path that other sites do not hold; names them.

        Example:
            >>> edges.effect("0.resid_post", "1.resid_post").at(  # doctest: +SKIP
            ...     example=0, target="1.resid_post.feature:7@3", source="0.resid_post.feature:2@3")
            -0.217
        """
        up, down = self._ends(source, target)
        check_direct(self._network, up, down)
        return EdgeEffects(*self._effects(self._network, up, down))

    def gradient(self, source: str, target: str) -> EdgeGradients:
        """The same before the source's difference is contracted: one number for each coordinate of the source.

        Args:
            source: key of the site that edges leave.
            target: key of the site that they lead to.

        Raises:
            ValueError: no such site, or no path that other sites do not hold; names them.

        Example:
            >>> edges.gradient("0.resid_post", "1.resid_post").times_difference()  # doctest: +SKIP
            EdgeEffects(0.resid_post -> 1.resid_post; ...)
        """
        up, down = self._ends(source, target)
        check_direct(self._network, up, down)
        unit = self._chosen[up]
        said = self._parts[0].asked.delta[up]
        axes = self._axes(up, down, ("source_coordinate", coordinate_names(up, said, unit)))
        index, value = self._gathered(lambda one: local_gradients(one, down, up, self._chosen))
        chosen = coordinates_in(up, said, unit)
        place = torch.searchsorted(unit, unit_of(up.units, said)[chosen].cpu())
        difference = self._difference(up, chosen)
        ends = self._named(up, down)
        return EdgeGradients(ends, axes, index, value, difference, unit_names(up, unit), tuple(place.tolist()))

    def indirect(self, source: str, target: str, through: str | Sequence[str]) -> IndirectEffects:
        """What goes from source to target by way of some sites between them, and not directly.

        The effect with these sites live, less the effect with them held. A path that passes two of them in turn belongs
        to both together and to neither alone.

        Args:
            source: key of the site that edges leave.
            target: key of the site that they lead to.
            through: keys of sites between the two, or the key of one.

        Raises:
            ValueError: no such site, one that does not lie between, or no path left through those named.

        Example:
            >>> edges.indirect("0.resid_post", "1.resid_post", through=["1.attn_out", "1.mlp_out"])  # doctest: +SKIP
            IndirectEffects(0.resid_post -> 1.resid_post; ...)
        """
        up, down = self._ends(source, target)
        keys = (through,) if isinstance(through, str) else tuple(through)
        check_between(self._network, up, down, keys)
        fewer = without(self._network, [site for site in self._network.sites if site.key in keys])
        check_direct(fewer, up, down)
        live = IndirectEffects(*self._effects(fewer, up, down), through=keys)
        return live - IndirectEffects(*self._effects(self._network, up, down), through=keys)

    # ------------------------------------------------------------ parts of these
    def _ends(self, source: str, target: str) -> tuple[CircuitSite, CircuitSite | None]:
        up = site_of(self._network, source)
        if up is None:
            raise ValueError("nothing follows the metric; edges leave a site and lead to another, or to the metric")
        return up, site_of(self._network, target)

    def _effects(
        self, network: Network, up: CircuitSite, down: CircuitSite | None
    ) -> tuple[Ends, Axes, Tensor, Tensor]:
        axes = self._axes(up, down, ("source_unit", unit_names(up, self._chosen[up])))
        found = self._gathered(lambda one: local_effects(one, network, down, up, self._chosen))
        return self._named(up, down), axes, *found

    def _gathered(self, of: Callable[[Local], Entries]) -> tuple[Tensor, Tensor]:
        """Entries of all examples."""
        parts: list[Entries] = []
        with self._network.running():
            for one in self._parts:
                found = of(one)
                index = found.index.clone()
                index[0] = one.asked.example.cpu()[index[0]]
                parts.append(Entries(index, found.value))
        return torch.cat([one.index for one in parts], 1), torch.cat([one.value for one in parts])

    def _axes(self, up: CircuitSite, down: CircuitSite | None, last: tuple[str, tuple[str, ...]]) -> Axes:
        positions = tuple(map(str, range(max(self._lengths))))
        targets = ("metric",) if down is None else unit_names(down, self._chosen[down])
        return {
            "example": tuple(map(str, range(len(self._lengths)))),
            "target_position": positions,
            "target_unit": targets,
            "source_position": positions,
            last[0]: last[1],
        }

    def _named(self, up: CircuitSite, down: CircuitSite | None) -> Ends:
        return Ends(up.key, key_of(down), self._lengths)

    def _difference(self, up: CircuitSite, coordinates: Tensor) -> Tensor:
        """[example, position, coordinate], padded to the longest prompt."""
        rows = [difference_of(one, up)[..., coordinates].cpu() for one in self._parts]
        longest = max(self._lengths)
        return torch.cat([torch.nn.functional.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])
