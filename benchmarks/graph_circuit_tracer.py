"""circuit-tracer's side of graph.py: a worker, run in the peer's environment. Arguments: the setup's folder, threads.

The TransformerLens backend on the unfolded weights, everything resident, all features attributed: `attribute(prompt,
model, attribution_targets=ids, batch_size=...)`. A case is a batch size.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from circuit_tracer import attribute
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_llama_weights
from transformers import LlamaForCausalLM

from graph_bound import gemm
from graph_model import BOS, Setup, load_setup
from graph_table import BATCHES
from measuring import Case, serve


class Tokenizer:
    """What is asked of a tokenizer for ids without text."""

    padding_side = "right"
    all_special_ids = (BOS,)

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def decode(self, ids: Any) -> str:
        """The ids as they are."""
        return str(ids)


def load(folder: Path) -> TransformerLensReplacementModel:
    """The saved Llama and transcoders as a replacement model."""
    hf = LlamaForCausalLM.from_pretrained(folder / "model").eval()
    config = hf.config
    hooked = HookedTransformerConfig(
        n_layers=config.num_hidden_layers, d_model=config.hidden_size, n_ctx=config.max_position_embeddings,
        d_head=config.head_dim, n_heads=config.num_attention_heads, d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size, act_fn="silu", eps=config.rms_norm_eps, normalization_type="RMS", final_rms=True,
        gated_mlp=True, positional_embedding_type="rotary", rotary_dim=config.head_dim, rotary_base=config.rope_theta,
        rotary_adjacent_pairs=False, device="cpu", dtype=torch.float32, model_name="llama",
    )  # fmt: skip
    files = {layer: str(folder / "transcoders" / f"layer_{layer}.safetensors") for layer in range(hooked.n_layers)}
    transcoders = load_transcoder_set(
        files, "", "mlp.hook_in", "mlp.hook_out", device=torch.device("cpu"), lazy_encoder=False, lazy_decoder=False
    )
    model = TransformerLensReplacementModel.from_config(hooked, transcoders)
    moved = {wrapped(name): tensor for name, tensor in convert_llama_weights(hf, hooked).items()}
    model.load_state_dict(moved, strict=False)  # what is not moved are the transcoders, masks and rotations
    model.tokenizer = Tokenizer(config.vocab_size)
    with torch.no_grad():
        ids = load_setup(folder).ids[None]
        torch.testing.assert_close(model(ids), hf(ids).logits, atol=1e-3, rtol=1e-3)
    return model


def wrapped(name: str) -> str:
    """A TransformerLens parameter's name inside the replacement model, which wraps MLPs and the unembedding."""
    return name.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed.")


def graph(model: TransformerLensReplacementModel, setup: Setup, batch: int) -> Case:
    """One graph at one batch size."""
    return Case(
        lambda: attribute(setup.ids, model, attribution_targets=setup.targets, batch_size=batch),
        lambda graph: graph.adjacency_matrix.nbytes,
        lambda graph: {"adjacency": graph.adjacency_matrix, "features": graph.active_features},
    )


def main() -> None:
    """Load and convert the model, explain a short prompt so that everything is resident, and wait for requests."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    model, setup = load(folder), load_setup(folder)
    attribute(setup.ids[:4], model, attribution_targets=setup.targets, batch_size=BATCHES[0])
    cases = {f"batch {batch}": graph(model, setup, batch) for batch in BATCHES}
    cases["gemm"] = Case(gemm, lambda tensor: tensor.nbytes)
    names = ("circuit-tracer", "transformer-lens", "torch", "transformers")
    serve(cases, {name: version(name) for name in names})


if __name__ == "__main__":
    main()
