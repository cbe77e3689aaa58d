"""Dictionaries that read and write elsewhere than a transcoder usually does, in the ledger and as targets."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import families
import whence
from by_hand import Slow, block, calls, paths
from whence.components.activation import Activation

IDS = families.prompts(2, 6, seed=7)
TOKEN, FEATURES, WIDTH = 9, 24, families.WIDTH
NAMES = ["llama", "gpt2", "gemma2", "phi"]


def weights(seed: int, features: int = FEATURES, width: int = WIDTH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((features, width), (features,), (features, width), (width,), (width, width))
    return [0.3 * torch.randn(shape, generator=generator) for shape in shapes]


def transcoder(layer: int, **sites: str) -> whence.Transcoder:
    *four, skip = weights(layer)
    return whence.Transcoder(layer, *four, Activation("relu"), skip, **sites)


def attribute(hf: torch.nn.Module, dictionary: object, targets: object = TOKEN, **options: object) -> whence.Scores:
    options = {"by": "feature"} | options
    return whence.dla(whence.Model(hf), IDS, targets, dictionary=dictionary, position=None, **options)


def row(scores: whence.Scores, key: str) -> Tensor:
    return scores.values[scores.keys.index(whence.Node.parse(key))]


def close(one: Tensor, other: Tensor, scores: whence.Scores) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * scores.values.abs().max())


def read_at(hf: torch.nn.Module, layer: int, site: str) -> Tensor:
    """What a site says, from the norm before the MLP, its own formula written out."""
    norm = next(writer.norm for writer in whence.Model(hf).layout.of(layer) if writer.name == "mlp")
    (call,), _ = calls(hf, IDS, norm)
    x = call[0][0]
    if site == "resid_mid":
        return x
    if site == "mlp_in":
        return call[1]
    x = x - x.mean(-1, keepdim=True) if isinstance(norm, torch.nn.LayerNorm) else x
    eps = next(getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name))
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def written_at(hf: torch.nn.Module, layer: int, site: str) -> Tensor:
    post = getattr(block(hf, layer), "post_feedforward_layernorm", None)
    module = post if site == "mlp_out_normed" and post is not None else block(hf, layer).get_submodule(paths(hf)["mlp"])
    (call,), _ = calls(hf, IDS, module)
    return call[1].reshape(*IDS.shape, -1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reads", ["mlp_in", "mlp_in_normalized", "resid_mid"])
@pytest.mark.parametrize("writes", ["mlp_out", "mlp_out_normed"])
def test_a_transcoder_is_read_and_written_at_its_own_sites(name: str, reads: str, writes: str) -> None:
    hf, one = families.tiny(name), transcoder(1, reads=reads, writes=writes)
    scores, slow = attribute(hf, one), Slow(hf, IDS)
    x, y = read_at(hf, 1, reads), written_at(hf, 1, writes)
    f, through = one.encode(x), x @ one.W_skip.T

    def effect(part: Tensor) -> Tensor:
        return slow.effect(slow.after("mlp", 1, part) if writes == "mlp_out" else part, TOKEN)

    for i in (0, 5, FEATURES - 1):
        assert close(row(scores, f"1.mlp.feature:{i}"), effect(f[..., i, None] * one.W_dec[i]), scores)
    assert close(row(scores, "1.mlp.skip"), effect(through), scores)
    assert close(row(scores, "1.mlp.bias"), effect(one.b_dec.expand_as(y)), scores)
    assert close(row(scores, "1.mlp.error"), effect(y - f @ one.W_dec - one.b_dec - through), scores)
    assert float((scores.remainder.abs() / scores.magnitude).max()) < 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reads", ["mlp_in", "mlp_in_normalized", "resid_mid"])
def test_a_features_preactivation_as_target_is_what_it_reads_there(name: str, reads: str) -> None:
    hf, one = families.tiny(name), transcoder(1, reads=reads)
    scores = attribute(hf, one, whence.activation("1.mlp.feature:3"), by="head")
    assert torch.allclose(scores.target, one.pre_activations(read_at(hf, 1, reads))[..., 3], atol=1e-4)
    assert float((scores.remainder.abs() / scores.magnitude).max()) < 1e-5


def test_layers_that_a_cross_layer_transcoder_only_writes_have_an_error_and_no_features() -> None:
    hf = families.tiny("gemma2")
    encoder, bias, decoder, last, skip = weights(0)
    decoders = (torch.stack([decoder, 2 * decoder, -decoder], 1),)
    one = whence.CrossLayerTranscoder((encoder,), (bias,), decoders, (last,), Activation("relu"), (0,), (skip,))
    scores, slow = attribute(hf, one), Slow(hf, IDS)
    (f,) = one.encode(read_at(hf, 0, "mlp_in")[None])
    expected = sum(slow.effect(slow.after("mlp", at, f[..., 3, None] * decoders[0][3, at]), TOKEN) for at in range(3))
    assert close(row(scores, "0.mlp.feature:3"), expected, scores)
    missed = slow.after("mlp", 2, written_at(hf, 2, "mlp_out") - f @ decoders[0][:, 2])
    assert close(row(scores, "2.mlp.error"), slow.effect(missed, TOKEN), scores)
    assert {key.layer for key in scores.keys if key.name == "mlp.feature"} == {0}
    assert {key.layer for key in scores.keys if key.name == "mlp.skip"} == {0}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_an_sae_of_the_heads_outputs_stands_for_the_attention_s_write(name: str) -> None:
    hf = families.tiny(name)
    last = block(hf, 1).get_submodule(paths(hf)["attn"])
    (call,), _ = calls(hf, IDS, last)
    z = call[0][0].reshape(*IDS.shape, -1)
    one = whence.SAE(1, *weights(3, width=z.shape[-1])[:4], Activation("topk", k=4), "attn_z")
    scores, slow = attribute(hf, one), Slow(hf, IDS)
    nothing = last(torch.zeros_like(z)).detach()

    def effect(part: Tensor) -> Tensor:
        return slow.effect(slow.after("attn", 1, last(part).detach() - nothing), TOKEN)

    f = one.encode(z)
    for i in (0, 5, FEATURES - 1):
        assert close(row(scores, f"1.attn_z.feature:{i}"), effect(f[..., i, None] * one.W_dec[i]), scores)
    assert close(row(scores, "1.attn_z.error"), effect(z - one.decode(f)), scores)
    fixed = slow.effect(slow.after("attn", 1, nothing), TOKEN)
    assert close(row(scores, "1.attn_z.bias"), effect(one.b_dec.expand_as(z)) + fixed, scores)
    assert float((scores.remainder.abs() / scores.magnitude).max()) < 1e-5


def test_heads_of_another_width_are_refused() -> None:
    one = whence.SAE(1, *weights(3, width=5)[:4], Activation("relu"), "attn_z")
    with pytest.raises(ValueError, match="width 5; the heads of layer 1 put out 32"):
        attribute(families.tiny("gpt2"), one)


def test_a_dictionary_of_the_embeddings_has_no_ledger() -> None:
    one = whence.SAE(0, *weights(3)[:4], Activation("relu"), "embed")
    with pytest.raises(NotImplementedError, match="embed dictionary is not offered"):
        attribute(families.tiny("gpt2"), one)


def test_the_strongest_features_are_the_same_wherever_they_read() -> None:
    hf, one = families.tiny("gemma2"), transcoder(1, reads="resid_mid", writes="mlp_out_normed")
    full, few = attribute(hf, one), attribute(hf, one, top=3)
    for key in (key for key in few.keys if key.index is not None):
        assert torch.allclose(row(few, str(key)), row(full, str(key)), atol=1e-6)
    plain = attribute(hf, replace(one, reads="mlp_in"), top=3)
    assert [key for key in plain.keys if key.index is not None] != []
