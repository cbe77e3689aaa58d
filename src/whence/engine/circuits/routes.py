"""Which sites act on which, and what lies between two of them.

    R -> d     d reads the stream before another site holds all of it
    between    sites that something of R passes on its way to d, in the order of the forward pass

Cost: none. Knows nothing of units.
"""

from collections.abc import Sequence

from whence.engine.circuits.network import CircuitSite, Network


def upstream(network: Network, site: CircuitSite | None) -> tuple[int, list[CircuitSite]]:
    """The point from which what a site reads can be run with every site on the way held, and these sites.

    Args:
        network: the model and its sites.
        site: the one that reads; None for the metric.
    """
    point = network.end if site is None else site.point
    start = point - 1 if site is not None and site.sublayer is None else point
    if start < 0:
        return 0, []
    while start not in network.at_point:
        start -= 1
    between = [sublayer for stage in network.stages[start:point] for sublayer in stage]
    passed = [network.at_sublayer[sublayer] for sublayer in between if sublayer in network.at_sublayer]
    return start, [network.at_point[start], *passed]


def site_of(network: Network, key: str) -> CircuitSite | None:
    """A site by its key; None for the metric.

    Raises:
        ValueError: no such site.
    """
    if key == "metric":
        return None
    sites = {site.key: site for site in network.sites}
    if key not in sites:
        raise ValueError(f"{key!r} is no site of these dictionaries; they are {', '.join(sites)}, and metric")
    return sites[key]


def between(network: Network, source: CircuitSite, target: CircuitSite | None) -> list[CircuitSite]:
    """The sites that lie between two."""
    behind = _above(network, target)
    return [site for site in network.sites if site in behind and source in _above(network, site)]


def check_direct(network: Network, source: CircuitSite, target: CircuitSite | None) -> None:
    """Refuse a pair that no path joins while the network's sites are held.

    Raises:
        ValueError: there is none; names what lies between.
    """
    if source in upstream(network, target)[1]:
        return
    pair = f"{source.key} -> {key_of(target)}"
    held = ", ".join(site.key for site in between(network, source, target))
    if held:
        raise ValueError(
            f"{pair}: nothing goes directly, for these sites hold all that lies between: {held}; ask for the edges in "
            f"between, or for indirect(..., through=) of some of them"
        )
    raise ValueError(
        f"{pair}: no path leads there; sites that act on {key_of(target)} are "
        f"{', '.join(site.key for site in network.sites if site in _above(network, target)) or 'none'}"
    )


def check_between(network: Network, source: CircuitSite, target: CircuitSite | None, through: Sequence[str]) -> None:
    """Refuse sites that do not lie between two.

    Raises:
        ValueError: none given, or one that lies elsewhere; names those that do.
    """
    there = [site.key for site in between(network, source, target)]
    wrong = [key for key in through if key not in there]
    if wrong or not through:
        said = f"through={', '.join(wrong)} does not lie there" if wrong else "through= names no site"
        raise ValueError(f"{source.key} -> {key_of(target)}: {said}; between them {_are(there)}")


def key_of(target: CircuitSite | None) -> str:
    """A site's key, or the metric's."""
    return "metric" if target is None else target.key


def _are(keys: list[str]) -> str:
    return f"are {', '.join(keys)}" if keys else "is no site"


def _above(network: Network, target: CircuitSite | None) -> set[CircuitSite]:
    """All sites that act on one, directly or not."""
    found: set[CircuitSite] = set()
    new = upstream(network, target)[1]
    while new:
        found.update(new)
        new = list({one for site in new for one in upstream(network, site)[1]} - found)
    return found
