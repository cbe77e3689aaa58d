import pytest

from whence.components.formats.hooks import both_sides, place_of_hook
from whence.errors import FileFormatError


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.0.hook_resid_pre", (0, "resid_pre")),
        ("blocks.11.hook_resid_mid", (11, "resid_mid")),
        ("blocks.2.mlp.hook_in", (2, "mlp_in")),
        ("blocks.2.mlp.hook_out", (2, "mlp_out")),
        ("blocks.2.hook_attn_out", (2, "attn_out_normed")),
        ("hook_embed", (0, "embed")),
        ("model.embed_tokens", (0, "embed")),
        ("model.layers.4", (4, "resid_post")),
        ("model.layers.4.input", (4, "resid_pre")),
        ("model.layers.4.mlp", (4, "mlp_out")),
        ("model.layers.4.self_attn.o_proj.input", (4, "attn_z")),
        ("transformer.h.1.attn.output", (1, "attn_out")),
        ("gpt_neox.layers.1.attention.dense.input", (1, "attn_z")),
    ],
)
def test_a_name_is_its_layer_and_site(name, place):
    assert place_of_hook(name) == place


def test_a_transcoder_stands_for_both_sides_of_its_module():
    assert both_sides("layers.3.mlp") == (3, "mlp_in", "mlp_out")


@pytest.mark.parametrize(
    "name", ["blocks.0.attn.hook_q", "model.layers.4.post_attention_layernorm", "lm_head", "", "mlp"]
)
def test_a_name_that_is_not_known_is_refused(name):
    with pytest.raises(FileFormatError, match="no place that whence knows"):
        place_of_hook(name)
