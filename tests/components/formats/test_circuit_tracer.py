import pytest
import torch
from safetensors.torch import save_file

from components.formats.by_hand import FEATURES, WIDTH, X, above, random, same, top
from whence.components.activation import Activation
from whence.components.loading import load_dictionary
from whence.errors import FileFormatError

HOOKS = "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"


def config(folder, text):
    (folder / "config.yaml").write_text(text)
    return folder


def layers(folder, *, threshold=False, skip=False):
    written = []
    for i in range(2):
        own = {"W_enc": random(FEATURES, WIDTH, seed=i), "b_enc": random(FEATURES, seed=i)}
        own |= {"W_dec": random(FEATURES, WIDTH, seed=i + 5), "b_dec": random(WIDTH, seed=i)}
        own |= {"activation_function.threshold": random(1, FEATURES, seed=i)} if threshold else {}
        own |= {"W_skip": random(WIDTH, WIDTH, seed=i)} if skip else {}
        save_file(own, folder / f"layer_{i}.safetensors")
        written.append(own)
    return written


def test_transcoders_with_relu_are_read(tmp_path):
    written = layers(tmp_path)
    found = load_dictionary(config(tmp_path, "model_kind: transcoder_set\n" + HOOKS))
    assert (found.kind, found.layers, found.reads, found.writes) == (
        "transcoder",
        (0, 1),
        "resid_mid",
        "mlp_out_normed",
    )
    for one, own in zip(found, written, strict=True):
        features = (X @ own["W_enc"].T + own["b_enc"]).relu()
        assert same(one.encode(X), features)
        assert same(one.decode(features), features @ own["W_dec"] + own["b_dec"])


def test_a_threshold_makes_a_jumprelu_that_keeps_the_sign(tmp_path):
    written = layers(tmp_path, threshold=True)
    found = load_dictionary(config(tmp_path, "model_kind: transcoder_set\n" + HOOKS))
    own = written[1]
    pre = X @ own["W_enc"].T + own["b_enc"]
    assert same(found[1].encode(X), above(pre, own["activation_function.threshold"][0]))
    assert (found[1].encode(X) < 0).any()


def test_a_topk_keeps_the_largest_whatever_their_sign(tmp_path):
    written = layers(tmp_path)
    found = load_dictionary(config(tmp_path, f"model_kind: transcoder_set\n{HOOKS}activation: topk\nk: 4\n"))
    assert same(found[0].encode(X), top(X @ written[0]["W_enc"].T + written[0]["b_enc"], 4))
    assert found[0].activation == Activation("topk", k=4, relu=False)


def test_the_skip_of_a_transcoder_multiplies_from_the_left(tmp_path):
    written = layers(tmp_path, skip=True)
    found = load_dictionary(config(tmp_path, "model_kind: transcoder_set\n" + HOOKS))
    assert same(X @ found.skip(1).T, X @ written[1]["W_skip"].T)


def cross_layer(folder, *, skip=False):
    written = {}
    for i in range(3):
        encoder = {f"W_enc_{i}": random(FEATURES, WIDTH, seed=i), f"b_enc_{i}": random(FEATURES, seed=i)}
        encoder |= {f"b_dec_{i}": random(WIDTH, seed=i), f"threshold_{i}": random(FEATURES, seed=i + 3).abs()}
        encoder |= {f"W_skip_{i}": random(WIDTH, WIDTH, seed=i)} if skip else {}
        decoder = {f"W_dec_{i}": random(FEATURES, 3 - i, WIDTH, seed=i)}
        save_file(encoder, folder / f"W_enc_{i}.safetensors")
        save_file(decoder, folder / f"W_dec_{i}.safetensors")
        written |= encoder | decoder
    return written


def test_a_cross_layer_transcoder_is_read_with_its_skip(tmp_path):
    written = cross_layer(tmp_path, skip=True)
    found = load_dictionary(config(tmp_path, "model_kind: cross_layer_transcoder\n" + HOOKS))
    x = torch.stack([X, X + 1, X * 2])
    features = [
        above(x[i] @ written[f"W_enc_{i}"].T + written[f"b_enc_{i}"], written[f"threshold_{i}"]) for i in range(3)
    ]
    (own,) = found
    assert all(same(a, b) for a, b in zip(own.encode(x), features, strict=True))
    for at in range(3):
        expected = sum(features[i] @ written[f"W_dec_{i}"][:, at - i] for i in range(at + 1)) + written[f"b_dec_{at}"]
        assert same(own.decode(features)[at], expected)
        assert same(X @ found.skip(at).T, X @ written[f"W_skip_{at}"])
    index = torch.tensor([3, 0])
    assert same(found.decoder(0, index, 2), written["W_dec_0"][index, 2])


def test_a_list_of_references_is_followed_to_files_of_either_kind(tmp_path):
    layers(tmp_path)
    threshold = {"threshold": random(FEATURES).abs()}
    gemma = {"w_enc": random(WIDTH, FEATURES), "w_dec": random(FEATURES, WIDTH), "b_enc": random(FEATURES)}
    save_file(gemma | threshold | {"b_dec": random(WIDTH)}, tmp_path / "params.safetensors")
    (tmp_path / "set").mkdir()
    named = "".join(f"  - {tmp_path / name}\n" for name in ("layer_1.safetensors", "params.safetensors"))
    found = load_dictionary(config(tmp_path / "set", f"model_kind: transcoder_set\n{HOOKS}transcoders:\n{named}"))
    assert found.layers == (0, 1)
    assert same(found[1].encode(X), above((X @ gemma["w_enc"] + gemma["b_enc"]).relu(), threshold["threshold"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.yaml, so nothing says where its transcoders read and write"),
        ("model_kind: lens\n" + HOOKS, "model_kind 'lens' is not known"),
        ("model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n", "does not say its feature_output_hook"),
        ("model_kind: transcoder_set\nfeature_input_hook: odd\nfeature_output_hook: hook_mlp_out\n", "hook 'odd'"),
        (f"model_kind: transcoder_set\n{HOOKS}activation: tanh\n", "activation 'tanh' is not known"),
        (f"model_kind: transcoder_set\n{HOOKS}activation: topk\n", "topk and not its k"),
        (f"model_kind: cross_layer_transcoder\n{HOOKS}", "holds no W_enc_<layer>"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(tmp_path, text, message):
    layers(tmp_path)
    if text is not None:
        config(tmp_path, text)
    with pytest.raises(FileFormatError, match=message):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("having", [(1,), (0, 2)])
def test_layers_without_a_skip_pass_nothing_on_beside_those_that_have_one(tmp_path, having):
    written = cross_layer(tmp_path, skip=True)
    for i in set(range(3)) - set(having):
        kept = {name: tensor for name, tensor in written.items() if name.endswith(f"_{i}") and "dec_" not in name}
        kept = {name: tensor for name, tensor in kept.items() if "skip" not in name}
        save_file(kept | {f"b_dec_{i}": written[f"b_dec_{i}"]}, tmp_path / f"W_enc_{i}.safetensors")
    found = load_dictionary(config(tmp_path, "model_kind: cross_layer_transcoder\n" + HOOKS))
    for i in range(3):
        expected = X @ written[f"W_skip_{i}"] if i in having else torch.zeros_like(X)
        assert same(X @ found.skip(i).T, expected)
