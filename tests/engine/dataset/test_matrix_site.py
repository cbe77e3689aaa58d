import pytest
import torch

from dataset_parts import random_parts, small, summed, wired
from whence.components.parameters import ParameterComponents
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS


def without(parts: ParameterComponents, *names: str) -> ParameterComponents:
    """With no component alive in these matrices."""
    dead = [part for part in parts if part.site.partition(".")[2] in names]
    return parts.kept({part.site: torch.zeros(part.count, dtype=torch.bool) for part in dead})


@pytest.mark.parametrize(
    ("names", "spd"),
    [
        (("attn.q",), False),
        (("attn.v", "glu.up"), False),
        (("attn.o", "glu.gate", "glu.down"), False),
        (("attn.q", "attn.v", "glu.up"), True),
    ],
)
def test_a_matrix_without_a_component_that_is_alive_has_no_units_and_the_rest_of_it_stays(
    names: tuple[str, ...], spd: bool
) -> None:
    model = small("llama biased")
    parts = random_parts(model)
    options = Options(METRICS, live=spd, weighting="both", spd=spd)
    found, whole = summed(wired(model, without(parts, *names), options)), summed(wired(model, parts, options))
    dead = {f"{layer}.{name}" for layer in (0, 1) for name in names}
    assert set(found) == {pair for pair in whole if not dead & set(pair)}
    assert all(block.isfinite().all() for sums in found.values() for block in sums.values())


def test_a_dead_matrix_gives_what_it_gave_as_one_vector() -> None:
    model = small("llama biased")
    parts = random_parts(model, only=("attn.o", "glu.down"))
    options = Options(("attr",))
    alive, dead = (summed(wired(model, one, options)) for one in (parts, without(parts, "attn.o")))
    before = alive["output", "0.attn.o"]["attr"].sum(1) + alive["output", "0.attn.o.delta"]["attr"][:, 0]
    assert torch.allclose(dead["output", "0.attn.o.delta"]["attr"][:, 0], before)
