import pytest
import torch
from safetensors.torch import save_file

from components.formats.by_hand import FEATURES, WIDTH, X, above, random, same, top, write_json
from whence.components.loading import load_dictionary
from whence.errors import FileFormatError

RESID = "blocks.3.hook_resid_pre"


def write(folder, config, *, without=(), **more):
    own = {"W_enc": random(WIDTH, FEATURES), "W_dec": random(FEATURES, WIDTH), "b_enc": random(FEATURES)}
    own |= {"b_dec": random(WIDTH)} | more
    own = {name: tensor for name, tensor in own.items() if name not in without}
    settings = {"d_in": WIDTH, "d_sae": FEATURES, "apply_b_dec_to_input": False, "normalize_activations": "none"}
    write_json(folder / "cfg.json", settings | config)
    save_file(own, folder / "sae_weights.safetensors")
    return own


def pre(own, x=X):
    return x @ own["W_enc"] + own["b_enc"]


def new_style(architecture, hook=RESID, **more):
    return {"architecture": architecture, "metadata": {"hook_name": hook}} | more


def test_a_standard_sae_reads_its_input_less_the_bias(tmp_path):
    own = write(tmp_path, new_style("standard", apply_b_dec_to_input=True))
    found = load_dictionary(tmp_path)
    features = pre(own, X - own["b_dec"]).relu()
    assert (found.kind, found.layers, found.site) == ("sae", (3,), "resid_pre")
    assert same(found[3].encode(X), features)
    assert same(found[3].decode(features), features @ own["W_dec"] + own["b_dec"])


def test_an_old_file_keeps_its_hook_at_the_top(tmp_path):
    own = write(tmp_path, {"hook_name": RESID, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}})
    assert same(load_dictionary(tmp_path)[3].encode(X), top(pre(own), 2).relu())


THRESHOLD = random(FEATURES).abs()


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        (new_style("jumprelu"), {"threshold": THRESHOLD}, lambda p: above(p, THRESHOLD).relu()),
        (new_style("topk", k=3), {}, lambda p: top(p, 3).relu()),
        (new_style("batchtopk"), {"topk_threshold": torch.tensor(0.4)}, lambda p: above(p, 0.4)),
        (new_style("matryoshka_batchtopk"), {"threshold": THRESHOLD}, lambda p: above(p, THRESHOLD)),
        (new_style("matryoshka"), {}, lambda p: p.relu()),
    ],
)
def test_each_architecture_is_its_own_nonlinearity(tmp_path, config, more, expected):
    own = write(tmp_path, config, **more)
    assert same(load_dictionary(tmp_path)[3].encode(X), expected(pre(own)))


def test_a_gated_sae_says_what_its_two_paths_say(tmp_path):
    biases = {"b_gate": random(FEATURES, seed=1), "b_mag": random(FEATURES, seed=2), "r_mag": random(FEATURES, seed=3)}
    own = write(tmp_path, new_style("gated", apply_b_dec_to_input=True), without=("b_enc",), **biases)
    p = (X - own["b_dec"]) @ own["W_enc"]
    expected = (p * own["r_mag"].exp() + own["b_mag"]).relu() * (p + own["b_gate"] > 0)
    found = load_dictionary(tmp_path)
    assert same(found[3].encode(X), expected)
    rows, bias = found.encoder(3, torch.arange(FEATURES))
    active = found.active(3, X)
    assert same(active.pre_activation, (X @ rows.T + bias)[active.position, active.feature])


def test_features_rescaled_by_their_decoders_are_folded(tmp_path):
    own = write(tmp_path, new_style("topk", k=2, rescale_acts_by_decoder_norm=True))
    norm = own["W_dec"].norm(dim=-1)
    found, features = load_dictionary(tmp_path)[3], top(pre(own) * norm, 2).relu()
    assert same(found.encode(X), features)
    assert same(found.decode(features), (features / norm) @ own["W_dec"] + own["b_dec"])


def test_a_finetuned_scale_is_folded_into_what_is_written(tmp_path):
    scale = random(FEATURES, seed=9)
    own = write(tmp_path, new_style("standard"), scaling_factor=scale)
    features = pre(own).relu()
    assert same(load_dictionary(tmp_path)[3].decode(features), (features * scale) @ own["W_dec"] + own["b_dec"])


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"])
def test_transcoders_are_read_with_their_skips(tmp_path, kind):
    more = {"threshold": THRESHOLD} if "jumprelu" in kind else {}
    more |= {"W_skip": random(WIDTH, WIDTH)} if "skip" in kind else {}
    hooks = {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out"}
    own = write(tmp_path, {"architecture": kind, "metadata": hooks}, **more)
    found = load_dictionary(tmp_path)
    assert (found.kind, found.reads, found.writes) == ("transcoder", "mlp_in_normalized", "mlp_out_normed")
    assert same(found[2].encode(X), above(pre(own), more.get("threshold", 0.0)).relu())
    assert found.skip(2) is None if "skip" not in kind else same(X @ found.skip(2).T, X @ own["W_skip"].T)


def test_folders_below_make_one_set(tmp_path):
    for layer in (1, 4):
        write(tmp_path / f"layer_{layer}", new_style("standard", f"blocks.{layer}.attn.hook_z"))
    found = load_dictionary(tmp_path)
    assert (found.layers, found.site) == ((1, 4), "attn_z")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (new_style("temporal"), "architecture 'temporal' is not known"),
        (new_style("standard", normalize_activations="layer_norm"), "normalised .layer_norm. each time it runs"),
        (new_style("standard", "blocks.3.attn.hook_q"), "hook 'attn.hook_q' is no place"),
        (new_style("standard", hook_head_index=2), "reads head 2 alone"),
        (new_style("standard", activation_fn="tanh-relu"), "activation 'tanh-relu' is not known"),
        (new_style("topk"), "does not say its k"),
        ({"architecture": "standard"}, "does not say its hook_name"),
        (new_style("transcoder"), "hook_name_out of a transcoder"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, config, message):
    write(tmp_path, config)
    with pytest.raises(FileFormatError, match=message):
        load_dictionary(tmp_path)
