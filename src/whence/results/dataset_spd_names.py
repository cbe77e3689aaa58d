"""Names of sites in files of spd, concrete or canonical, as ours: `h.0.attn.q_proj` and `0.attn.q` are `0.attn.q`.

Their "output" is the residual before the unembedding, by coordinate: our `output.stream`. It knows no model; an MLP
with a gate is told from one without by the sites beside it; an MLP's last matrix alone is taken for one without.
"""

import re
from collections.abc import Iterable

from whence.errors import FileFormatError
from whence.results.dataset_axes import STREAM

_ATTENTION = {"q_proj": "attn.q", "k_proj": "attn.k", "v_proj": "attn.v", "o_proj": "attn.o"}
_FUSED = {"c_attn": "attn_fused.qkv", "c_proj": "attn_fused.o"}
_GATED = {"gate_proj": "glu.gate", "up_proj": "glu.up", "down_proj": "glu.down"}
_PLAIN = {"c_fc": "mlp.up", "down_proj": "mlp.down", "c_proj": "mlp.down"}
_CONCRETE = re.compile(r"(?:transformer\.)?(?:h|h_torch)\.(?P<layer>\d+)\.(?P<kind>attn|mlp)\.(?P<name>\w+)")
_ORDER = (
    *("attn.q", "attn.k", "attn.v", "attn.o", "attn_fused.qkv", "attn_fused.o"),
    *("glu.gate", "glu.up", "glu.down", "mlp.up", "mlp.down"),
)
_CANONICAL = re.compile(rf"(?P<layer>\d+)\.(?P<name>{'|'.join(map(re.escape, _ORDER))})")
_ENDS = {"embed": "embed", "wte": "embed", "transformer.wte": "embed", "output": STREAM, "lm_head": STREAM}


def sites(names: Iterable[str]) -> dict[str, str]:
    """Our name of each of theirs, in the order of the model.

    Args:
        names: All the names in one file.

    Raises:
        FileFormatError: A name that is none of theirs, or two that mean one site.

    Example:
        >>> sites(["output", "h.0.attn.q_proj", "wte"])
        {'wte': 'embed', 'h.0.attn.q_proj': '0.attn.q', 'output': 'output.stream'}
    """
    names = list(names)
    gated = any(name.endswith((".gate_proj", ".up_proj")) for name in names)
    out = {name: _site(name, gated) for name in names}
    if len(set(out.values())) != len(out):
        raise FileFormatError(f"two of the names {sorted(out)} mean one site.")
    return dict(sorted(out.items(), key=lambda item: _place(item[1])))


def _site(name: str, gated: bool) -> str:
    if name in _ENDS:
        return _ENDS[name]
    if _CANONICAL.fullmatch(name):
        return name
    match = _CONCRETE.fullmatch(name)
    if match is not None:
        mlp = _GATED if gated else _PLAIN
        known = {**_ATTENTION, **_FUSED} if match["kind"] == "attn" else mlp
        if match["name"] in known:
            return f"{int(match['layer'])}.{known[match['name']]}"
    raise FileFormatError(f"{name!r} is not the name of a site that spd gives; known are 0.attn.q and h.0.attn.q_proj.")


def _place(site: str) -> tuple[int, int]:
    """Where in the model a site stands."""
    match = _CANONICAL.fullmatch(site)
    if match is None:
        return (-1, 0) if site == "embed" else (1 << 30, 0)
    return int(match["layer"]), _ORDER.index(match["name"])
