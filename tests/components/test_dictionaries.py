import pytest
import torch

from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Transcoder
from whence.results.keys import Node

RELU = Activation("relu")


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_transcoder_encodes_and_decodes_by_its_formula():
    own = Transcoder(1, random(6, 4), random(6), random(6, 4), random(4), Activation("topk", k=2))
    x = random(3, 5, 4)
    features = own.encode(x)
    assert torch.allclose(own.pre_activations(x), torch.einsum("bpd,fd->bpf", x, own.W_enc) + own.b_enc, atol=1e-6)
    assert (features > 0).sum(-1).max() == 2
    assert torch.allclose(own.decode(features), torch.einsum("bpf,fd->bpd", features, own.W_dec) + own.b_dec, atol=1e-6)


def test_a_transcoder_names_its_features_and_its_sites():
    own = Transcoder(2, random(6, 4), random(6), random(6, 4), random(4), RELU)
    assert own.node(5) == Node.parse("2.mlp.feature:5")
    assert (own.reads, own.writes, own.n_features) == ("mlp_in", "mlp_out", 6)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_an_sae_reads_and_writes_its_site(site):
    own = SAE(0, random(6, 4), random(6), random(6, 4), random(4), RELU, site)
    assert own.node(3) == Node.parse(f"0.{site}.feature:3")
    assert own.reads == own.writes == site


def cross_layer(layers=3, features=5, d=4):
    decoders = tuple(random(features, layers - source, d) for source in range(layers))
    return CrossLayerTranscoder(
        random(layers, features, d), random(layers, features), decoders, random(layers, d), RELU
    )


def test_a_cross_layer_transcoder_writes_to_its_own_and_every_later_layer():
    own, x = cross_layer(), random(3, 2, 7, 4)
    features = own.encode(x)
    expected = own.b_dec[:, None, None].expand(3, 2, 7, 4).clone()
    for source in range(3):
        for target in range(source, 3):
            expected[target] += features[source] @ own.W_dec[source][:, target - source]
    assert torch.allclose(own.decode(features), expected, atol=1e-5)


def test_a_cross_layer_transcoder_never_writes_backwards():
    own, x = cross_layer(), random(3, 7, 4)
    features = own.encode(x)
    features[2] += 1.0
    changed = (own.decode(features) - own.decode(own.encode(x))).abs().amax((1, 2))
    assert changed[:2].tolist() == [0.0, 0.0]
    assert changed[2] > 0


def test_a_cross_layer_transcoder_encodes_each_layer_by_its_own_weights():
    own, x = cross_layer(), random(3, 7, 4)
    assert torch.allclose(own.pre_activations(x)[1], x[1] @ own.W_enc[1].T + own.b_enc[1], atol=1e-5)
    assert own.node(1, 4) == Node.parse("1.mlp.feature:4")
    assert (own.n_layers, own.n_features) == (3, 5)


def test_a_decoder_with_a_layer_missing_is_refused():
    own = cross_layer()
    with pytest.raises(ValueError, match="3 encoders and 2 decoders"):
        CrossLayerTranscoder(own.W_enc, own.b_enc, own.W_dec[:2], own.b_dec, RELU)


def test_a_decoder_that_reaches_too_few_layers_is_refused():
    own = cross_layer()
    with pytest.raises(ValueError, match=r"W_dec\[1\] has shape \(5, 1, 4\)"):
        CrossLayerTranscoder(own.W_enc, own.b_enc, (own.W_dec[0], own.W_dec[2], own.W_dec[2]), own.b_dec, RELU)
