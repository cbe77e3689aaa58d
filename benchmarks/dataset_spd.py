"""spd's side of dataset.py: a worker. Arguments: the folder of the setup, threads, a checkout of spd, a data type.

Its own LlamaSimple, component model and harvester, given the saved weights; in place of its networks, importances are
those that were saved. "bfloat16" is what it does by default, "float32" runs its forward passes without autocast.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset_model import PLACES, Setup, load_setup
from dataset_spd_stubs import install
from graph_bound import gemm
from measuring import Case, serve

METRICS = {"attr": "attr", "attr_abs": "attr_abs", "mean_squared_attr": "square_attr"}
NAMES = {
    "model.embed_tokens": "wte",
    "model.layers": "h",
    "input_layernorm": "rms_1",
    "post_attention_layernorm": "rms_2",
    "self_attn": "attn",
    "model.norm": "ln_f",
}


class Peer:
    """The component model and what its harvester is told."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup = setup
        target = llama_simple(setup, folder)
        self.model = component_model(setup, target)
        topology = import_module("spd.topology").TransformerTopology(target)
        self.paths = {site: topology.canon_to_target(site) for site in (*setup.shape.sites, "embed", "output")}
        for site, path in self.paths.items():
            if site in setup.V:
                self.model.components[path].V.data.copy_(setup.V[site])
                self.model.components[path].U.data.copy_(setup.U[site])
        self.model.calc_causal_importances = self.importances
        self.topology = topology
        self.connected = self.connections()

    def importances(self, pre_weight_acts: dict[str, Tensor], **_: Any) -> Any:
        """The saved importances, of as many rows and tokens as the model was given."""
        rows, length = next(iter(pre_weight_acts.values())).shape[:2]
        given = {self.paths[site]: one[:rows, :length] for site, one in self.setup.importances.items()}
        return import_module("spd.models.component_model").CIOutputs(given, given, given)

    def connections(self) -> dict[str, list[str]]:
        """Sources of every target, as the peer's own job finds them."""
        raw = import_module("spd.topology").get_sources_by_target(self.model, self.topology, "cpu", "continuous")
        sources = {path for site, path in self.paths.items() if site != "output"}
        targets = {path for site, path in self.paths.items() if site != "embed"}
        return {to: [one for one in found if one in sources] for to, found in raw.items() if to in targets}

    def harvest(self) -> Any:
        """One batch into empty accumulators."""
        shape, embedding = self.setup.shape, self.topology.embedding_module
        alive = {self.paths[site]: torch.ones(shape.components, dtype=torch.bool) for site in shape.sites}
        harvester = import_module("spd.dataset_attributions.harvester").AttributionHarvester(
            self.model, self.connected, embedding.num_embeddings, alive, "continuous", self.paths["embed"],
            embedding, self.paths["output"], self.topology.unembed_module, torch.device("cpu"),
        )  # fmt: skip
        harvester.process_batch(self.setup.ids)
        return harvester

    def sums(self, harvester: Any) -> dict[str, Tensor]:
        """Raw sums by "metric target source", in canonical names."""
        return {
            f"{metric} {self.topology.target_to_canon(target)} {self.topology.target_to_canon(source)}": block
            for metric, own in METRICS.items()
            for target, sources in getattr(harvester, f"{own}_accumulator").items()
            for source, block in sources.items()
        }


# ------------------------------------------------------------ loading
def llama_simple(setup: Setup, folder: Path) -> Any:
    """The peer's own target model with the saved weights."""
    from safetensors.torch import load_file

    shape, module = setup.shape, import_module("spd.pretrain.models.llama_simple")
    config = module.LlamaSimpleConfig(
        model_type="LlamaSimple", block_size=shape.length, vocab_size=shape.vocab, n_layer=shape.layers,
        n_head=shape.heads, n_embd=shape.d_model, n_intermediate=shape.hidden, n_ctx=shape.length,
        rotary_dim=shape.d_model // shape.heads, n_key_value_heads=shape.heads,
    )  # fmt: skip
    model = module.LlamaSimple(config).eval().requires_grad_(False)
    weights = load_file(folder / "model" / "model.safetensors")
    model.load_state_dict({renamed(name): one for name, one in weights.items()} | tied(weights))
    setup.check(model(setup.ids)[0])
    return model


def renamed(name: str) -> str:
    """A weight's name in the peer's model."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def tied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The unembedding, which is the embedding."""
    return {"lm_head.weight": weights["model.embed_tokens.weight"]}


def component_model(setup: Setup, target: Any) -> Any:
    """The peer's component model over its target, with the cheapest networks, which are never run."""
    configs, module = import_module("spd.configs"), import_module("spd.models.component_model")
    info = import_module("spd.utils.module_utils").ModulePathInfo
    paths = [f"h.{layer}.{renamed(place)}" for layer in range(setup.shape.layers) for place in PLACES.values()]
    return module.ComponentModel(
        target_model=target,
        module_path_info=[info(module_path=path, C=setup.shape.components) for path in paths],
        ci_config=configs.LayerwiseCiConfig(fn_type="mlp", hidden_dims=[1]),
        sigmoid_type="leaky_hard",
        pretrained_model_output_attr="idx_0",
    )


def main() -> None:
    """Load the model, harvest once so that everything is resident, and wait for requests."""
    folder, threads, checkout, dtype = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    install(checkout, getattr(torch, dtype))
    peer = Peer(load_setup(folder), folder)
    peer.harvest()
    cases = {
        "batch": Case(peer.harvest, lambda found: sum(one.nbytes for one in peer.sums(found).values()), peer.sums),
        "gemm": Case(gemm, lambda tensor: tensor.nbytes),
    }
    serve(cases, {name: version(name) for name in ("torch", "transformers")})


if __name__ == "__main__":
    main()
