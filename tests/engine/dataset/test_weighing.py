import pytest
import torch

from dataset_parts import TOKENS, random_parts, rows, small, wired
from whence.components.parameters import ParameterComponents
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.kernels import Counted, Kernels
from whence.engine.dataset.weighing import Weighed
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS

OWN = torch.tensor([[0.0, 0.3, 0.30001], [1.0, 0.5, 0.2], [0.9, 0.9, 0.9]])  # the last token is padding
REAL = torch.tensor([[1.0], [1.0], [0.0]])


def parts() -> tuple[object, object]:
    model = small("gpt2")
    wiring = wired(model, random_parts(model))
    return wiring.readings["1.mlp.up"], wiring.writings["1.mlp.up"]


@pytest.mark.parametrize("weighting", ["none", "source", "target", "both"])
def test_weighted_sides_count_by_importances_above_the_least(weighting: str) -> None:
    reading, writing = parts()
    weighed = Weighed({"1.mlp.up": OWN}, REAL, weighting, 0.3)
    truth = torch.tensor([[0.0, 0.0, 0.30001], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    ones = REAL.expand(-1, 3)
    assert torch.equal(weighed.target(reading, 3), truth if weighting in ("target", "both") else ones)
    assert torch.equal(weighed.source(writing, 3), truth if weighting in ("source", "both") else ones)


def test_what_has_no_importance_counts_once_at_every_real_token() -> None:
    reading, writing = parts()
    weighed = Weighed({}, REAL, "both", 0.3)
    assert torch.equal(weighed.target(reading, 2), REAL.expand(-1, 2))
    assert torch.equal(weighed.source(writing, 2), REAL.expand(-1, 2))


def counted(components: ParameterComponents, options: Options) -> tuple[Counted, Window]:
    window, kernels = Window(), Kernels(wired(small("gpt2"), components, options))
    seen = kernels.count(rows(), torch.arange(3), window)
    kernels.finish(window)
    return seen, window


def test_importances_of_dead_components_are_left_out() -> None:
    components = random_parts(small("gpt2"))
    dead = next(part for part in components if part.alive is not None)
    seen, _ = counted(components, Options(METRICS, weighting="both"))
    given = {site: seen.passed.tape.inputs[site] for site in components.parts}
    said = components.importances(given, torch.arange(3))[dead.site].flatten(0, 1)
    assert torch.equal(seen.weighed.importance[dead.site], said[:, dead.ids])


@pytest.mark.parametrize("weighting", ["target", "source", "both"])
def test_a_batch_in_which_nothing_counts_brings_nothing(weighting: str) -> None:
    model = small("gpt2")
    parts = random_parts(model).parts
    none = ParameterComponents(
        parts, lambda inputs, _: {s: torch.zeros(*x.shape[:2], parts[s].count).double() for s, x in inputs.items()}
    )
    _, window = counted(none, Options(METRICS, weighting=weighting))
    side = 0 if weighting == "target" else 1
    weighted = [pair for pair in window.sums if pair[side] in parts]
    assert weighted
    assert not any(bool(block.any()) for pair in weighted for block in window.sums[pair].values())
    assert bool(window.sums["output", "embed"]["attr"].any())
    assert TOKENS.tolist() == [5, 9]
