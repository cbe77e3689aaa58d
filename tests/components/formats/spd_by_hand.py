"""Checkpoints of component models, written out here as spd writes them."""

from collections import OrderedDict
from itertools import pairwise

import torch
import yaml

EMBED, QKV, UP, HEAD = "transformer.wte", "transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_fc", "lm_head"
SITES = {EMBED: "embed.matrix", QKV: "0.attn_fused.qkv", UP: "0.mlp.up", HEAD: "output.matrix"}
SIZES = {EMBED: (9, 3, 6), QKV: (6, 5, 18), UP: (6, 4, 24), HEAD: (6, 2, 9)}  # in, components, out
PATTERNS = [(HEAD, 2), ("transformer.h.*.mlp.*", 4), ("*attn.c_attn", 5), ("*.wte", 3)]
TOKENS = torch.tensor([[1, 2, 8], [0, 0, 3]])
ATTENTION = {"n_heads": 2, "max_len": 64, "rope_base": 50.0}
GROUPS = [{"name": "un.embed", "patterns": [HEAD]}, {"name": "rest", "patterns": ["*.wte", "transformer.h.*"]}]
G = "ci_fn._global_ci_fn."


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) / shape[0] ** 0.5


INPUTS = {path: TOKENS if path == EMBED else random(2, 3, SIZES[path][0], seed=len(path)) for path in SIZES}


def dashed(path):
    return path.replace(".", "-")


def layers(prefix, *sizes, count=None):
    lead, pairs = () if count is None else (count,), pairwise(sizes)
    return {
        f"{prefix}{2 * n}.{end}": random(*lead, *((into, out) if end == "W" else (out,)), seed=n)
        for n, (into, out) in enumerate(pairs)
        for end in "Wb"
    }


def single(prefix, into, out):
    return {f"{prefix}W": random(into, out), f"{prefix}b": random(out)}


def attention(prefix):
    ends = {f"{prefix}{end}_proj.weight": random(8, 8, seed=n) for n, end in enumerate(("q", "k", "v", "out"))}
    return ends | {f"{prefix}rope.inv_freq": 50.0 ** -(torch.arange(0, 4, 2) / 4)}


def each_mlp():
    named = [(f"ci_fn._ci_fns.{dashed(path)}.layers.", count) for path, (_, count, _) in SIZES.items()]
    return {name: one for prefix, count in named for name, one in layers(prefix, 1, 4, 1, count=count).items()}


def transformer():
    state = single(f"{G}_input_projector.", 21, 8) | single(f"{G}_output_head.", 8, 14)
    return state | attention(f"{G}_blocks.0.attn.") | layers(f"{G}_blocks.0.mlp.", 8, 5, 8)


def reverse():
    state = {f"{G}_reader_norms.{name}.weight": random(8) for name in ("un-embed", "rest")}
    for name, into, out in (("un-embed", 6, 2), ("rest", 15, 12)):
        state |= single(f"{G}_inp_projectors.{name}.", into, 8) | layers(f"{G}_readers.{name}.", 8, 5, out)
    state |= single(f"{G}_transitions.un-embed.", 8, 8) | attention(f"{G}_attn_transitions.un-embed.")
    return state | {f"{G}_{kind}_norms.un-embed.weight": random(8, seed=3) for kind in ("transition", "attn")}


SIMPLE = {"d_model": 8, "n_blocks": 1, "mlp_hidden_dim": [5], "attn_config": ATTENTION}
REVERSE = {"d_resid_ci_fn": 8, "block_groups": GROUPS, "transition_attn_config": ATTENTION, "reader_hidden_dims": [5]}
NETWORKS = {
    "mlp": (each_mlp(), {"mode": "layerwise", "hidden_dims": [4]}),
    "global_shared_mlp": (layers(f"{G}layers.", 21, 7, 14), {"mode": "global", "hidden_dims": [7]}),
    "global_shared_transformer": (transformer(), {"mode": "global", "simple_transformer_ci_cfg": SIMPLE}),
    "global_reverse_residual": (reverse(), {"mode": "global", **REVERSE}),
}


# ------------------------------------------------------------ checkpoints
def checkpoint(kind):
    """The names and the order that a state dict of spd has."""
    model = {f"target_model.{path}.weight": random(4, 4) for path in (EMBED, "transformer.wpe", QKV, UP, HEAD)}
    model |= {f"target_model.{path}.bias": random(4) for path in (QKV, UP)}
    parts = {
        f"_components.{dashed(path)}.{end}": random(*((into, count) if end == "V" else (count, out)))
        for path, (into, count, out) in SIZES.items()
        for end in "UV"
    }
    bias = {f"_components.{dashed(QKV)}.bias": random(18)}
    return OrderedDict(model | parts | bias | NETWORKS[kind][0])


def settings(kind, **more):
    info = [{"module_pattern": pattern, "C": count} for pattern, count in PATTERNS]
    network = {"fn_type": kind, **NETWORKS[kind][1]}
    return {"ci_config": network, "sigmoid_type": "normal", "module_info": info, "pretrained_model_name": "gpt2"} | more


def write(folder, state, config, step=1000):
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / f"model_{step}.pth")  # noqa: TID251  # the files that the reader is for
    (folder / "final_config.yaml").write_text(yaml.safe_dump(config))
    return folder


def run(folder, kind="global_shared_mlp", change=None, **more):
    state = checkpoint(kind)
    if change is not None:
        change(state)
    return write(folder, state, settings(kind, **more))


def with_identity(state):
    state |= {f"_components.{dashed(UP)}-pre_identity.{end}": random(6, 6) for end in "VU"}
