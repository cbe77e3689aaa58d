import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from components.formats.by_hand import FEATURES, WIDTH, X, above, random, same, write_json
from whence.components.loading import load_dictionary
from whence.errors import FileFormatError


def arrays(file, seed=0):
    own = {"W_enc": random(WIDTH, FEATURES, seed=seed), "W_dec": random(FEATURES, WIDTH, seed=seed)}
    own |= {
        "b_enc": random(FEATURES, seed=seed),
        "b_dec": random(WIDTH, seed=seed),
        "threshold": random(FEATURES).abs(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{name: tensor.numpy() for name, tensor in own.items()})
    return own


def second(file, hooks, *, skip=False):
    own = {"w_enc": random(WIDTH, FEATURES), "w_dec": random(FEATURES, WIDTH), "b_enc": random(FEATURES)}
    own |= {"b_dec": random(WIDTH), "threshold": random(FEATURES).abs()}
    own |= {"affine_skip_connection": random(WIDTH, WIDTH)} if skip else {}
    write_json(file.with_name("config.json"), hooks)
    save_file(own, file)
    return own


def test_an_npz_is_read_with_layer_and_site_from_its_path(tmp_path):
    written = arrays(tmp_path / "transcoder" / "layer_5" / "width_16k" / "params.npz")
    found = load_dictionary(tmp_path)
    assert (found.kind, found.layers, found.reads, found.writes) == (
        "transcoder",
        (5,),
        "mlp_in_normalized",
        "mlp_out_normed",
    )
    features = above((X @ written["W_enc"] + written["b_enc"]).relu(), written["threshold"])
    assert same(found[5].encode(X), features)
    assert same(found[5].decode(features), features @ written["W_dec"] + written["b_dec"])


def test_several_layers_make_one_set(tmp_path):
    for layer in (3, 11):
        arrays(tmp_path / "resid_post" / f"layer_{layer}" / "params.npz", seed=layer)
    assert load_dictionary(tmp_path).layers == (3, 11)


def test_arguments_say_what_the_path_does_not(tmp_path):
    arrays(tmp_path / "params.npz")
    found = load_dictionary(tmp_path / "params.npz", layer=2, site="attn_z")
    assert (found.kind, found.layers, found.site) == ("sae", (2,), "attn_z")
    with pytest.raises(FileFormatError, match=r"does not say which site it is for. Pass site="):
        load_dictionary(tmp_path / "params.npz", layer=2)
    with pytest.raises(FileFormatError, match=r"does not say which layer it is for. Pass layer="):
        load_dictionary(tmp_path / "params.npz", site="transcoder")
    with pytest.raises(ValueError, match="site='residual' is not known"):
        load_dictionary(tmp_path / "params.npz", layer=2, site="residual")


def test_two_dictionaries_of_one_layer_are_not_mixed_up(tmp_path):
    for size in ("16k", "65k"):
        arrays(tmp_path / "resid_post" / "layer_3" / size / "params.npz")
    with pytest.raises(FileFormatError, match=r"one dictionary a layer, got layers .* load a folder below it"):
        load_dictionary(tmp_path)


def test_an_npz_of_something_else_is_refused_and_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "params.npz", W_enc=np.array([object()], dtype=object))
    with pytest.raises(FileFormatError, match="does not hold the arrays"):
        load_dictionary(tmp_path, layer=0, site="transcoder")


def test_gemma_scope_2_says_itself_where_it_belongs(tmp_path):
    hooks = {
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
    }
    written = second(tmp_path / "layer_3_width_16k" / "params.safetensors", hooks, skip=True)
    found = load_dictionary(tmp_path)
    assert (found.kind, found.layers, found.reads, found.writes) == ("transcoder", (3,), "mlp_in", "mlp_out_normed")
    assert same(found[3].encode(X), above((X @ written["w_enc"] + written["b_enc"]).relu(), written["threshold"]))
    assert same(X @ found.skip(3).T, X @ written["affine_skip_connection"])


@pytest.mark.parametrize(
    ("hook", "site"), [("model.layers.7.output", "resid_post"), ("model.layers.7.self_attn.o_proj.input", "attn_z")]
)
def test_gemma_scope_2_saes_read_and_write_one_site(tmp_path, hook, site):
    second(tmp_path / "params.safetensors", {"hf_hook_point_in": hook})
    found = load_dictionary(tmp_path)
    assert (found.kind, found.layers, found.site) == ("sae", (7,), site)


@pytest.mark.parametrize("having", [(0, 1, 2), (2,)])
def test_gemma_scope_2_cross_layer_files_start_at_layer_0_and_are_read_from_their_own(tmp_path, having):
    write_json(
        tmp_path / "config.json",
        {"in": "pre_feedforward_layernorm.output", "out": "post_feedforward_layernorm.output"},
    )
    written = []
    for i in range(3):
        own = {"w_enc": random(WIDTH, FEATURES, seed=i), "w_dec": random(FEATURES, 3, WIDTH, seed=i)}
        own |= {"b_enc": random(FEATURES, seed=i), "b_dec": random(WIDTH, seed=i), "threshold": random(FEATURES).abs()}
        skip = {"affine_skip_connection": random(WIDTH, WIDTH, seed=i)} if i in having else {}
        save_file(own | skip, tmp_path / f"params_layer_{i}.safetensors")
        written.append(own)
    found = load_dictionary(tmp_path)
    index = torch.tensor([5, 2])
    assert (found.kind, found.layers, found.written(1)) == ("cross_layer_transcoder", (0, 1, 2), (1, 2))
    assert same(found.decoder(1, index, 2), written[1]["w_dec"][index, 2])
    assert same(found.in_memory().decoder(1, index, 2), written[1]["w_dec"][index, 2])
    assert same(X @ found.skip(2).T, X @ random(WIDTH, WIDTH, seed=2))
    assert same(X @ found.skip(0).T, X @ random(WIDTH, WIDTH, seed=0) if 0 in having else 0 * X)
