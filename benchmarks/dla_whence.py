"""whence's side of dla.py: a worker. Arguments: the model's folder, and the attention kernel."""

import sys
from importlib.metadata import version
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from dla_model import Setup, load_setup
from measuring import Case, serve
from whence.methods.direct import direct_logit_attribution
from whence.model.model import Model
from whence.results.scores import Scores


def compared(scores: Scores) -> dict[str, torch.Tensor]:
    """The rows that the peer has too; a component with its bias, as the peer counts it."""
    names = [key.name for key in scores.keys]
    rows = {unit: torch.tensor([name == unit for name in names]) for unit in ("attn.head", "mlp.neuron")}
    tensors = {unit: scores.values[found] for unit, found in rows.items() if found.any()}
    if not tensors:
        keys = [str(key).removesuffix(".bias") for key in scores.keys if not key.name.startswith(("final", "output"))]
        order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        index = torch.tensor([order[key] for key in keys])
        tensors["component"] = torch.zeros(len(order), *scores.values.shape[1:]).index_add_(
            0, index, scores.values[: len(keys)]
        )
    return tensors


def cases(model: Model, setup: Setup) -> dict[str, Case]:
    """Everything that is measured."""

    def attribution(by: Any, position: int | None, *, shared: bool) -> Case:
        pair = (setup.answers[0], setup.foils[0]) if shared else (setup.answers, setup.foils)
        answer, foil = (int(side) if shared else side for side in pair)
        return Case(
            lambda: direct_logit_attribution(model, setup.ids, answer, foil, by=by, position=position),
            lambda scores: scores.values.nbytes + scores.target.nbytes,
            compared,
        )

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return model.hf(input_ids=setup.ids, use_cache=False).logits

    found = {"forward": Case(forward, lambda logits: logits.nbytes)}
    for by in ("component", "head", ("head", "neuron")):
        for where, position in (("last", -1), ("all", None)):
            name = f"{by if isinstance(by, str) else '+'.join(by)} {where}"
            shared = by == ("head", "neuron")
            found[name] = attribution(by, position, shared=shared)
            if shared:
                found[f"{name} own pairs"] = attribution(by, position, shared=False)
    return found


def main() -> None:
    """Load the model, run it once so that it is resident, and wait for requests."""
    folder, attention = sys.argv[1:]
    torch.set_num_threads(1)
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()
    model, setup = Model(hf), load_setup(folder)
    everything = cases(model, setup)
    everything["forward"].run()
    serve(everything, {name: version(name) for name in ("whence", "torch", "transformers")})


if __name__ == "__main__":
    main()
