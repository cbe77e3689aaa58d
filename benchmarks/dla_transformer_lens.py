"""TransformerLens' side of dla.py: a worker, run in the peer's environment. Arguments: the model's folder, the setting.

"default" is the call as its documentation shows it. "best" is what we found to be cheapest: no autograd, and a cache of
exactly the activations that the decomposition reads. Both need `enable_compatibility_mode()`, which is not measured.
"""

import sys
from importlib.metadata import version
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import direct_logit_attribution
from transformers import AutoModelForCausalLM

from dla_model import Setup, load_setup
from measuring import Case, serve

ALWAYS = ("hook_embed", "hook_pos_embed", "ln_final.hook_scale")
READS = {
    "component": (*ALWAYS, "hook_attn_out", "hook_mlp_out"),
    "head": (*ALWAYS, "hook_z", "hook_resid_post"),
    "head+neuron": (*ALWAYS, "hook_z", "mlp.hook_post"),
}


def attribution(bridge: Any, setup: Setup, unit: str, position: int | None, *, best: bool) -> torch.Tensor:
    """Scores of heads or components, [part, example, ...]."""
    options: dict[str, Any] = {
        "answer_tokens": setup.answers,
        "incorrect_tokens": setup.foils,
        "unit": unit,
        "pos": position,
    }
    if position is None:  # one token per position is what it wants here
        length = setup.ids.shape[1]
        options["answer_tokens"], options["incorrect_tokens"] = (
            side[:, None].expand(-1, length) for side in (setup.answers, setup.foils)
        )
    if not best:
        return direct_logit_attribution(bridge, setup.ids, **options).attribution
    with torch.no_grad():
        return direct_logit_attribution(bridge, cache=cached(bridge, setup, unit), **options).attribution


def decomposition(bridge: Any, setup: Setup, position: int | None, *, best: bool) -> torch.Tensor:
    """Scores of heads and neurons on one pair for the whole batch, [part, example, ...]."""
    with torch.set_grad_enabled(not best):
        cache = cached(bridge, setup, "head+neuron") if best else bridge.run_with_cache(setup.ids)[1]
        direction = bridge.W_U[:, setup.answers[0]] - bridge.W_U[:, setup.foils[0]]
        return cache.get_full_resid_decomposition(
            expand_neurons=True, apply_ln=True, pos_slice=position, project_output_onto=direction
        )


def cached(bridge: Any, setup: Setup, unit: str) -> Any:
    """A cache of what one decomposition reads."""
    reads = READS[unit]
    return bridge.run_with_cache(setup.ids, names_filter=lambda name: name.endswith(reads))[1]


def cases(bridge: Any, setup: Setup) -> dict[str, Case]:
    """Everything that is measured."""
    heads, neurons = bridge.cfg.n_layers * bridge.cfg.n_heads, bridge.cfg.n_layers * bridge.cfg.d_mlp

    def size(result: torch.Tensor) -> int:
        return result.nbytes

    def no_grad_forward() -> torch.Tensor:
        with torch.no_grad():
            return bridge(setup.ids)

    def parts(scores: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = scores.detach()
        if len(scores) > heads + neurons:
            return {"attn.head": scores[:heads], "mlp.neuron": scores[heads : heads + neurons]}
        return {"attn.head": scores[:heads]} if len(scores) == heads + 1 else {"component": scores}

    found = {"forward": Case(no_grad_forward, size)}
    for where, position in (("last", -1), ("all", None)):
        for setting in ("default", "best"):
            for unit in ("component", "head"):

                def run(unit: str = unit, position: int | None = position, setting: str = setting) -> torch.Tensor:
                    return attribution(bridge, setup, unit, position, best=setting == "best")

                found[f"{unit} {where} {setting}"] = Case(run, size, parts)

            def full(position: int | None = position, setting: str = setting) -> torch.Tensor:
                return decomposition(bridge, setup, position, best=setting == "best")

            found[f"head+neuron {where} {setting}"] = Case(full, size, parts)
    return found


def main() -> None:
    """Load and convert the model, run it once so that it is resident, and wait for requests."""
    folder, setting = sys.argv[1:]
    torch.set_num_threads(1)
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    bridge = TransformerBridge.boot_transformers(folder, hf_model=hf, device="cpu", tokenizer=None)
    # By default heads come without what value biases and the norm before attention add through them. To compare numbers
    # they are kept whole, as in the model and in whence; it makes no difference to the cost.
    bridge.enable_compatibility_mode(fold_value_biases=setting != "best")
    everything = cases(bridge, load_setup(folder))
    everything["forward"].run()
    serve(everything, {name: version(name) for name in ("transformer-lens", "torch", "transformers")})


if __name__ == "__main__":
    main()
