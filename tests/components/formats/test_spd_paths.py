import pytest

from whence.components.formats.spd_paths import site_of_module
from whence.demo import model_path
from whence.model.matrices import matrices
from whence.model.model import Model

LAYOUTS = {
    "separate, gated": {
        "wte": "embed.matrix",
        "h.3.attn.q_proj": "3.attn.q",
        "h.3.attn.k_proj": "3.attn.k",
        "h.3.attn.v_proj": "3.attn.v",
        "h.3.attn.o_proj": "3.attn.o",
        "h.3.mlp.gate_proj": "3.glu.gate",
        "h.3.mlp.up_proj": "3.glu.up",
        "h.3.mlp.down_proj": "3.glu.down",
        "lm_head": "output.matrix",
    },
    "separate, no gate": {
        "h.12.attn.q_proj": "12.attn.q",
        "h.12.attn.o_proj": "12.attn.o",
        "h.12.mlp.c_fc": "12.mlp.up",
        "h.12.mlp.down_proj": "12.mlp.down",
    },
    "fused": {
        "h_torch.0.attn.c_attn": "0.attn_fused.qkv",
        "h_torch.0.attn.c_proj": "0.attn_fused.o",
        "h_torch.0.mlp.c_fc": "0.mlp.up",
        "h_torch.0.mlp.c_proj": "0.mlp.down",
    },
    "GPT-2": {
        "transformer.wte": "embed.matrix",
        "transformer.h.1.attn.c_attn": "1.attn_fused.qkv",
        "transformer.h.1.attn.c_proj": "1.attn_fused.o",
        "transformer.h.1.mlp.c_proj": "1.mlp.down",
    },
    "GPT-NeoX": {
        "gpt_neox.layers.1.attention.query_key_value": "1.attn_fused.qkv",
        "gpt_neox.layers.1.attention.dense": "1.attn_fused.o",
        "gpt_neox.layers.1.mlp.dense_4h_to_h": "1.mlp.down",
    },
    "OPT": {
        "model.decoder.layers.1.self_attn.out_proj": "1.attn.o",
        "model.decoder.layers.1.fc1": "1.mlp.up",
        "model.decoder.layers.1.fc2": "1.mlp.down",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_modules_have_canonical_names(layout):
    known = LAYOUTS[layout]
    assert {path: site_of_module(path, known) for path in known} == known


def test_the_name_of_one_matrix_depends_on_those_beside_it():
    assert site_of_module("h.0.mlp.down_proj", ["h.0.mlp.down_proj", "h.1.mlp.gate_proj"]) == "0.mlp.down"
    assert site_of_module("h.0.mlp.down_proj", ["h.0.mlp.down_proj", "h.0.mlp.gate_proj"]) == "0.glu.down"
    assert site_of_module("model.layers.0.self_attn.o_proj", ["model.layers.0.self_attn.qkv_proj"]) == "0.attn_fused.o"


@pytest.mark.parametrize(
    "path", ["h.0.attn", "h.0.attn.q_norm", "h.q_proj", "ln_f", "h.0.attn.q_proj.pre_identity", "encoder.h.0.mlp.c_fc"]
)
def test_other_modules_have_none(path):
    assert site_of_module(path, [path]) is None


def test_names_are_those_of_the_model_itself():
    found = matrices(Model.from_pretrained(model_path()).layout)
    paths = [one.path for one in found.values()]
    assert [site_of_module(path, paths) for path in paths] == list(found)
