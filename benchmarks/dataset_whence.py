"""whence's side of dataset.py: a worker. Arguments: the folder of the setup, threads, and the cases to be ready for.

What is measured is a batch into empty sums; finding out how the model is wired, once a run, comes before.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dataset_embeddings import by_loop, by_scatter
from dataset_model import Setup, load_setup
from graph_bound import gemm
from measuring import Case, serve
from whence.components.importance.given import Given
from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset import named
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.wired import Options
from whence.engine.dataset.wiring import wire
from whence.model.model import Model
from whence.results.dataset_axes import METRICS, STREAM

SETTINGS = {
    "as the peer": Options(METRICS, live=True, weighting="both", spd=True),
    "weighted": Options(METRICS, weighting="both"),
    "default": Options(METRICS),
}
PULLED = "pulled"  # as "weighted", everything by vector-Jacobian products


def components_of(setup: Setup) -> named.Given:
    """The saved components and importances."""
    parts = {site: Part(site, setup.V[site], setup.U[site]) for site in setup.shape.sites}
    return named.sorted_out(ParameterComponents(parts, Given(setup.importances)))


def kernels_of(model: Model, setup: Setup, options: Options, *, pulled: bool = False) -> Kernels:
    """What a run settles before its first batch.

    Args:
        model: the saved model.
        setup: components and tokens.
        options: what is summed.
        pulled: use no closed form.
    """
    nothing = torch.tensor([], dtype=torch.long)
    wired = wire(model, components_of(setup), torch.unique(setup.ids), nothing, options, setup.shape.length)
    return Kernels(replace(wired, routes=dict.fromkeys(wired.routes, "backward")) if pulled else wired)


def harvest(kernels: Kernels, model: Model, setup: Setup) -> Window:
    """One batch into empty sums."""
    window = Window()
    kernels.count(model.batch(setup.ids), torch.arange(setup.shape.rows), window)
    kernels.finish(window)
    return window


def size(window: Window) -> int:
    """Bytes of the blocks."""
    return sum(one.nbytes for own in window.sums.values() for one in own.values())


def sums(window: Window, setup: Setup) -> dict[str, Tensor]:
    """Raw sums by "metric target source" as the peer has them: a column for every token of the vocabulary."""
    seen, found = torch.unique(setup.ids), dict[str, Tensor]()
    for (target, source), own in window.sums.items():
        for metric, block in own.items():
            stored = block
            if source == "embed":
                stored = torch.zeros(len(block), setup.shape.vocab).index_copy_(1, seen, block.float())
            found[f"{metric} {'output' if target == STREAM else target} {source}"] = stored
    return found


def cases_of(model: Model, setup: Setup, wanted: list[str]) -> dict[str, Case]:
    """What will be asked for, the first of them run once so that everything is resident."""

    def case(found: Kernels) -> Case:
        return Case(lambda: harvest(found, model, setup), size, lambda window: sums(window, setup))

    def scattered(call: Callable[[Setup], Tensor]) -> Case:
        return Case(lambda: call(setup), lambda tensor: tensor.nbytes)

    asked = {name: options for name, options in SETTINGS.items() if name in wanted}
    found = {name: case(kernels_of(model, setup, options)) for name, options in asked.items()}
    found[wanted[0]].run()
    if PULLED in wanted:
        pulled = kernels_of(model, setup, SETTINGS["weighted"], pulled=True)
        found[PULLED] = Case(lambda: harvest(pulled, model, setup), size)
    found |= {"scatter": scattered(by_scatter), "loop": scattered(by_loop)}
    return found | {"gemm": Case(gemm, lambda tensor: tensor.nbytes)}


def main() -> None:
    """Load the model and wait for requests."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    setup = load_setup(folder)
    model = Model(AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="eager").eval())
    with torch.no_grad():
        setup.check(model.hf(input_ids=setup.ids, use_cache=False).logits)
    serve(cases_of(model, setup, sys.argv[3:]), {name: version(name) for name in ("whence", "torch", "transformers")})


if __name__ == "__main__":
    main()
