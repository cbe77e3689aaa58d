"""TransformerLens' side of edge_attribution.py: a worker, run in the peer's environment. Argument: the model's folder.

"default" is the documented call, which scores every edge at every position. "best" takes the same hook points for the
whole batch at once, and contracts them, positions summed, in one product a reader: what its numbers need at least.
"""

import sys
from importlib.metadata import version
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import attribution_patching as peer
from transformers import AutoModelForCausalLM

from dla_model import Setup, load_setup
from measuring import Case, serve

Scores = dict[str, torch.Tensor]  # by reader: one number a writer, in the order of the forward pass


class Sides:
    """The model and the question."""

    def __init__(self, bridge: Any, setup: Setup) -> None:
        self.bridge, self.setup = bridge, setup
        self.layers, self.heads = bridge.cfg.n_layers, bridge.cfg.n_heads
        self.writers = 1 + self.layers * (self.heads + 1)

    def metric(self, logits: torch.Tensor) -> torch.Tensor:
        """Answer less foil at the last token, summed over examples."""
        return (logits[:, -1, self.setup.answers[0]] - logits[:, -1, self.setup.foils[0]]).sum()

    def default(self) -> Any:
        """The documented call: from corrupt, where the gradient is taken, to clean."""
        config = peer.EdgeAttributionConfig(granularity="edge")
        ids = self.setup.ids
        return peer.attribution_patch(self.bridge, ids.flip(0), ids, self.metric, config).edge_scores

    def summed(self, scores: Any) -> Scores:
        """The documented call's scores without positions."""
        found: Scores = {}
        for (writer, reader), score in scores.items():
            row = found.setdefault(self._key(reader), torch.zeros(self.writers, dtype=torch.float64))
            row[self._column(writer)] += score
        return {key: row.float() for key, row in found.items()}

    def _key(self, reader: Any) -> str:
        if reader.kind in ("mlp_in", "logits"):
            return f"{reader.layer}.mlp" if reader.kind == "mlp_in" else "metric"
        return f"{reader.layer}.attn.head:{reader.head}.{reader.kind[0]}"

    def _column(self, writer: Any) -> int:
        if writer.kind == "embed":
            return 0
        return 1 + writer.layer * (self.heads + 1) + (writer.head if writer.kind == "attn_head_out" else self.heads)

    def best(self) -> Scores:
        """The same hook points, the whole batch at once, one product a reader."""
        ids = self.setup.ids
        with peer._edge_hook_flags(self.bridge):
            names = peer._writer_hook_names(self.layers)
            there = peer.cache_activation_and_gradient(self.bridge, ids.flip(0), self.metric, names, False)
            every = peer._edge_hook_names(self.layers)
            here = peer.cache_activation_and_gradient(self.bridge, ids, self.metric, every)
        rows = [there.activations[name] - here.activations[name] for name in names]
        delta = torch.cat([row if row.ndim == 4 else row[:, :, None] for row in rows], 2)
        found: Scores = {}
        for layer in range(self.layers):
            before = 1 + layer * (self.heads + 1)
            for end in "qkv":
                gradient = here.gradients[f"blocks.{layer}.attn.hook_{end}_input"]
                scores = torch.einsum("bphd,bpwd->hw", gradient, delta[:, :, :before])
                found |= {f"{layer}.attn.head:{head}.{end}": row for head, row in enumerate(scores)}
            gradient = here.gradients[f"blocks.{layer}.hook_mlp_in"]
            found[f"{layer}.mlp"] = torch.einsum("bpd,bpwd->w", gradient, delta[:, :, : before + self.heads])
        gradient = here.gradients[f"blocks.{self.layers - 1}.hook_resid_post"]
        found["metric"] = torch.einsum("bpd,bpwd->w", gradient, delta)
        return {
            key: torch.nn.functional.pad(row, (0, self.writers - len(row))) / len(ids) for key, row in found.items()
        }


def main() -> None:
    """Load and convert the model, run it once so that it is resident, and wait for requests."""
    torch.set_num_threads(1)
    hf = AutoModelForCausalLM.from_pretrained(sys.argv[1], attn_implementation="eager").eval()
    bridge = TransformerBridge.boot_transformers(sys.argv[1], hf_model=hf, device="cpu", tokenizer=None)
    bridge.eval()
    sides = Sides(bridge, load_setup(sys.argv[1]))

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return bridge(sides.setup.ids)

    def bytes_of(scores: Scores) -> int:
        return sum(row.nbytes for row in scores.values())

    cases = {
        "forward": Case(forward, lambda logits: logits.nbytes),
        "default": Case(sides.default, lambda scores: 8 * len(scores), sides.summed),
        "best": Case(sides.best, bytes_of, lambda scores: scores),
    }
    cases["forward"].run()
    serve(cases, {name: version(name) for name in ("transformer-lens", "torch", "transformers")})


if __name__ == "__main__":
    main()
