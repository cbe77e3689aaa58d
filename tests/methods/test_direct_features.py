"""Dictionaries in place of the writes they stand for: explicit scores, error rows, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import families
import whence
from by_hand import Slow, block, calls, paths, submodule
from whence.components.activation import Activation

IDS = families.prompts(2, 6, seed=7)
TOKEN, FEATURES, WIDTH = 9, 24, families.WIDTH


def weights(seed: int, layer: int = 0, width: int = WIDTH) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    return layer, random(FEATURES, width), random(FEATURES), random(FEATURES, width), random(width)


def transcoder(layer: int, width: int = WIDTH) -> whence.Transcoder:
    return whence.Transcoder(*weights(layer, layer, width), Activation("relu"))


def sae(layer: int, site: str) -> whence.SAE:
    return whence.SAE(*weights(layer + 10, layer), Activation("topk", k=4), site)


def cross_layer() -> whence.CrossLayerTranscoder:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    decoders = tuple(random(FEATURES, 3 - layer, WIDTH) for layer in range(3))
    encoders, biases, last = random(3, FEATURES, WIDTH), random(3, FEATURES), random(3, WIDTH)
    return whence.CrossLayerTranscoder(tuple(encoders), tuple(biases), decoders, tuple(last), Activation("relu"))


def attribute(hf: torch.nn.Module, dictionary: object, targets: object = TOKEN, **options: object) -> whence.Scores:
    return whence.direct_logit_attribution(
        whence.Model(hf), IDS, targets, by="feature", dictionary=dictionary, position=None, **options
    )


def row(scores: whence.Scores, key: str) -> Tensor:
    return scores.values[scores.keys.index(whence.Node.parse(key))]


def close(one: Tensor, other: Tensor, scores: whence.Scores) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * scores.values.abs().max())


def mlp_input(hf: torch.nn.Module, layer: int) -> Tensor:
    here = block(hf, layer)
    (call,), _ = calls(hf, IDS, here.fc1 if hf.config.model_type == "opt" else here.mlp)
    return call[0][0].reshape(*IDS.shape, -1)


def check_rows(
    scores: whence.Scores, slow: Slow, kind: str, place: str, f: Tensor, decoder: Tensor, bias: Tensor
) -> None:
    """Features, bias and error of one dictionary against their writes made explicit."""
    layer, site = place.split(".")
    last = submodule(block(slow.hf, int(layer)), paths(slow.hf)[kind])
    (call,), _ = calls(slow.hf, IDS, last)
    whole = call[1].reshape(*IDS.shape, -1)

    def effect(part: Tensor) -> Tensor:
        return slow.effect(slow.after(kind, int(layer), part), TOKEN)

    for i in (0, 5, FEATURES - 1):
        assert close(row(scores, f"{layer}.{site}.feature:{i}"), effect(f[..., i, None] * decoder[i]), scores)
    assert close(row(scores, f"{layer}.{site}.bias"), effect(bias.expand_as(whole)), scores)
    assert close(row(scores, f"{layer}.{site}.error"), effect(whole - f @ decoder - bias), scores)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "granite", "opt", "phi", "gptj"])
def test_a_transcoders_features_bias_and_error_stand_for_the_mlps_write(name: str) -> None:
    hf = families.tiny(name)
    scores = attribute(hf, [transcoder(layer) for layer in range(3)])
    one = transcoder(1)
    check_rows(scores, Slow(hf, IDS), "mlp", "1.mlp", one.encode(mlp_input(hf, 1)), one.W_dec, one.b_dec)
    assert not [key for key in scores.keys if str(key) in ("0.mlp", "1.mlp", "2.mlp")]
    assert float((scores.remainder.abs() / scores.magnitude).max()) < 1e-5


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("site", ["attn_out", "mlp_out"])
def test_an_sae_stands_for_the_write_it_rebuilds(name: str, site: str) -> None:
    hf, one, kind = families.tiny(name), sae(1, site), site.removesuffix("_out")
    scores = attribute(hf, one)
    (call,), _ = calls(hf, IDS, block(hf, 1).get_submodule(paths(hf)[kind]))
    check_rows(scores, Slow(hf, IDS), kind, f"1.{site}", one.encode(call[1]), one.W_dec, one.b_dec)
    assert whence.Node("attn" if kind == "mlp" else "mlp", 1) in scores.keys  # the other sublayer stays whole


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(("site", "layer"), [("resid_post", 1), ("resid_pre", 2), ("resid_pre", 0), ("resid_post", 2)])
def test_a_residual_sae_stands_for_everything_before_its_site(name: str, site: str, layer: int) -> None:
    hf, one = families.tiny(name), sae(layer, site)
    scores, slow = attribute(hf, one), Slow(hf, IDS)
    (call,), _ = calls(hf, IDS, block(hf, layer))
    stream = call[0][0] if site == "resid_pre" else call[1]
    f, place = one.encode(stream), f"{layer}.{site}"
    for i in (0, 5, FEATURES - 1):
        assert close(row(scores, f"{place}.feature:{i}"), slow.effect(f[..., i, None] * one.W_dec[i], TOKEN), scores)
    assert close(row(scores, f"{place}.error"), slow.effect(stream - one.decode(f), TOKEN), scores)
    start = layer if site == "resid_pre" else layer + 1
    writers = {(key.layer, key.name) for key in scores.keys if key.name in ("attn", "mlp")}
    assert writers == {(i, kind) for i in range(start, 3) for kind in ("attn", "mlp")}
    assert whence.Node("embed") not in scores.keys


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_cross_layer_feature_scores_the_sum_of_what_it_writes_at_every_layer(name: str) -> None:
    hf, one = families.tiny(name), cross_layer()
    scores, slow = attribute(hf, one), Slow(hf, IDS)
    f = one.encode(torch.stack([mlp_input(hf, layer) for layer in range(3)]))
    for source, i in ((0, 3), (1, 7), (2, 0)):
        writes = [f[source][..., i, None] * one.W_dec[source][i, to - source] for to in range(source, 3)]
        expected = sum(slow.effect(slow.after("mlp", source + n, w), TOKEN) for n, w in enumerate(writes))
        assert close(row(scores, f"{source}.mlp.feature:{i}"), expected, scores)
    rebuilt = one.decode(f)
    for layer in range(3):
        (call,), _ = calls(hf, IDS, block(hf, layer).get_submodule(paths(hf)["mlp"]))
        missed = slow.after("mlp", layer, call[1] - rebuilt[layer])
        assert close(row(scores, f"{layer}.mlp.error"), slow.effect(missed, TOKEN), scores)


@pytest.mark.parametrize("dictionary", [[transcoder(0), transcoder(2)], cross_layer(), sae(1, "resid_post")])
def test_the_strongest_features_are_those_of_the_full_ledger(dictionary: object) -> None:
    hf = families.tiny("gpt2")
    full, few = (attribute(hf, dictionary, [5, 6], top=top) for top in (None, 4))
    units = [i for i, key in enumerate(full.keys) if key.index is not None]
    best = full.values[units].abs().flatten(1).mean(1).topk(4).indices.tolist()
    kept = [key for key in few.keys if key.index is not None]
    assert {str(key) for key in kept} == {str(full.keys[units[i]]) for i in best}
    for key in kept:
        assert torch.allclose(row(few, str(key)), row(full, str(key)), atol=1e-6)
    rest = [unit for n, unit in enumerate(units) if n not in best]
    assert torch.allclose(row(few, "rest"), full.values[rest].sum(0), atol=1e-5)


def test_dictionaries_of_different_kinds_share_a_ledger() -> None:
    scores = attribute(families.tiny("llama"), [transcoder(2), sae(2, "attn_out"), sae(1, "resid_post")])
    assert {key.name for key in scores.keys if key.index is not None} == {
        "mlp.feature",
        "attn_out.feature",
        "resid_post.feature",
    }


def test_a_folder_of_dictionaries_explains_the_small_trained_model() -> None:
    folder = Path(__file__).parents[1] / "fixtures" / "small"
    found = [path for path in folder.glob("*") if (path / "result.json").exists()]
    assert {path.name for path in found} == {"transcoders", "poor_transcoders"}
    model = whence.Model.from_pretrained(folder / "model")
    for path in found:
        dictionaries = whence.load_dictionary(path)
        if dictionaries.site.startswith("resid"):
            dictionaries = dictionaries[dictionaries.layers[-1]]
        scores = whence.dla(model, "The capital of", by="feature", dictionary=dictionaries)
        assert float((scores.remainder.abs() / scores.magnitude).max()) < 1e-5


# ------------------------------------------------------------ features as targets
def feature_targets() -> list[tuple[str, object, str]]:
    return [
        ("1.mlp.feature:3", transcoder(1), "mlp"),
        ("1.mlp.feature:3", cross_layer(), "mlp"),
        ("1.resid_post.feature:3", sae(1, "resid_post"), "post"),
        ("1.resid_pre.feature:3", sae(1, "resid_pre"), "pre"),
    ]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt"])
@pytest.mark.parametrize(("key", "dictionary", "where"), feature_targets())
def test_a_features_preactivation_as_target_is_what_it_reads(
    name: str, key: str, dictionary: object, where: str
) -> None:
    hf = families.tiny(name)
    scores = whence.dla(whence.Model(hf), IDS, whence.activation(key), by="head", dictionary=dictionary, position=None)
    if where == "mlp":
        x = mlp_input(hf, 1)
    else:
        (call,), _ = calls(hf, IDS, block(hf, 1))
        x = call[0][0] if where == "pre" else call[1]
    if isinstance(dictionary, whence.CrossLayerTranscoder):
        expected = x @ dictionary.W_enc[1][3] + dictionary.b_enc[1][3]
    else:
        expected = dictionary.pre_activations(x)[..., 3]
    assert torch.allclose(scores.target, expected, atol=1e-4)
    heads = {key.layer for key in scores.keys if key.name == "attn.head"}
    assert heads == {"mlp": {0, 1}, "post": {0, 1}, "pre": {0}}[where]


def test_earlier_features_explain_a_later_one() -> None:
    scores = attribute(families.tiny("llama"), [transcoder(0), transcoder(2)], whence.activation("2.mlp.feature:3"))
    assert {key.layer for key in scores.keys if key.name == "mlp.feature"} == {0}


# ------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("dictionary", "error", "message"),
    [
        (transcoder(0, width=16), ValueError, "width 16; the model's stream has width 32"),
        (transcoder(7), ValueError, "for layer 7; the model has layers 0 to 2"),
        (sae(7, "resid_post"), ValueError, "for layer 7; the model has layers 0 to 2"),
        ([transcoder(1), sae(1, "mlp_out")], ValueError, "two dictionaries stand for the write of 1.mlp"),
        (
            [sae(0, "resid_post"), sae(1, "resid_post")],
            NotImplementedError,
            r"0.resid_post, 1.resid_post .* dictionary\[1\]",
        ),
        (sae(1, "resid_mid"), NotImplementedError, "resid_mid dictionary is not offered"),
        (None, ValueError, "needs dictionary="),
        ([], ValueError, "dictionary= is empty"),
        ("saes", TypeError, "holds a str; .*load_dictionary"),
        (3, TypeError, "holds a int"),
        ([transcoder(1), 3], TypeError, "holds a int"),
    ],
)
def test_dictionaries_that_cannot_be_placed_are_refused(dictionary: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        attribute(families.tiny("llama"), dictionary)


def test_a_write_that_is_not_single_has_no_dictionary() -> None:
    with pytest.raises(NotImplementedError, match="needs a single mlp write in layer 1, which holds attn, moe"):
        attribute(families.tiny("mixtral"), transcoder(1))


def test_a_residual_sae_later_than_the_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2\.resid_post stands for a later stream than 1.resid_mid"):
        attribute(families.tiny("llama"), sae(2, "resid_post"), whence.activation("1.mlp.neuron:3.up"))


def test_a_dictionary_without_features_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="dictionary= is for by='feature' or a feature as target, not by='head'"):
        whence.dla(whence.Model(families.tiny("llama")), IDS, TOKEN, by="head", dictionary=transcoder(0))
