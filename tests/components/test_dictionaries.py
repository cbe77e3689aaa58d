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


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_out", "embed"])
def test_an_sae_reads_and_writes_its_site(site):
    own = SAE(0, random(6, 4), random(6), random(6, 4), random(4), RELU, site)
    assert own.node(3) == Node.parse(f"0.{site}.feature:3")
    assert own.reads == own.writes == site


def cross_layer(layers=3, features=5, d=4):
    decoders = tuple(random(features, layers - source, d) for source in range(layers))
    encoders, biases, last = random(layers, features, d), random(layers, features), random(layers, d)
    return CrossLayerTranscoder(tuple(encoders), tuple(biases), decoders, tuple(last), RELU)


def test_a_cross_layer_transcoder_writes_to_its_own_and_every_later_layer():
    own, x = cross_layer(), random(3, 2, 7, 4)
    features = own.encode(x)
    expected = torch.stack(own.b_dec)[:, None, None].expand(3, 2, 7, 4).clone()
    for source in range(3):
        for target in range(source, 3):
            expected[target] += features[source] @ own.W_dec[source][:, target - source]
    assert torch.allclose(own.decode(features), expected, atol=1e-5)


def test_a_cross_layer_transcoder_never_writes_backwards():
    own, x = cross_layer(), random(3, 7, 4)
    features = own.encode(x)
    more = (*features[:2], features[2] + 1.0)
    changed = (own.decode(more) - own.decode(own.encode(x))).abs().amax((1, 2))
    assert changed[:2].tolist() == [0.0, 0.0]
    assert changed[2] > 0


def test_a_cross_layer_transcoder_encodes_each_layer_by_its_own_weights():
    own, x = cross_layer(), random(3, 7, 4)
    assert torch.allclose(own.encoder_of(1).pre_activations(x[1]), x[1] @ own.W_enc[1].T + own.b_enc[1], atol=1e-5)
    assert own.node(1, 4) == Node.parse("1.mlp.feature:4")
    assert (own.n_layers, own.layers) == (3, (0, 1, 2))


def test_a_decoder_with_a_layer_missing_is_refused():
    own = cross_layer()
    with pytest.raises(ValueError, match="3 encoders and 2 decoders"):
        CrossLayerTranscoder(own.W_enc, own.b_enc, own.W_dec[:2], own.b_dec, RELU)


def test_a_decoder_that_reaches_too_few_layers_is_refused():
    own = cross_layer()
    with pytest.raises(ValueError, match=r"W_dec\[1\] has shape \(5, 1, 4\)"):
        CrossLayerTranscoder(own.W_enc, own.b_enc, (own.W_dec[0], own.W_dec[2], own.W_dec[2]), own.b_dec, RELU)


def test_layers_of_a_cross_layer_transcoder_may_be_missing_and_differ_in_width():
    encoders, biases = (random(5, 4), random(7, 4)), (random(5), random(7))
    decoders, last = (random(5, 3, 4), random(7, 1, 4)), (random(4), random(4))
    own = CrossLayerTranscoder(encoders, biases, decoders, last, RELU, layers=(1, 3))
    x = random(2, 6, 4)
    first, second = own.encode(x)
    assert (own.n_layers, own.written(1), own.written(3)) == (4, (1, 2, 3), (3,))
    expected = torch.zeros(4, 6, 4)
    expected[1], expected[2] = first @ decoders[0][:, 0] + last[0], first @ decoders[0][:, 1]
    expected[3] = first @ decoders[0][:, 2] + second @ decoders[1][:, 0] + last[1]
    assert torch.allclose(own.decode((first, second)), expected, atol=1e-5)


def test_a_feature_that_does_not_write_at_a_layer_is_refused_there():
    with pytest.raises(ValueError, match="write at layers 1 to 2, not at 0"):
        cross_layer().decoder_of(1, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"site": "ln"}, "site 'ln'"),
        ({"layer": -1}, "count from 0"),
        ({"activation": Activation("jumprelu", threshold=torch.zeros(3))}, r"threshold has shape \(3,\)"),
        ({"activation": Activation("groupmax", k=4)}, "6 features do not split into 4 groups"),
        ({"b_enc": random(5)}, r"b_enc has shape \(5,\)"),
    ],
)
def test_an_sae_whose_parts_do_not_go_together_is_refused(changed, message):
    given = {"layer": 0, "W_enc": random(6, 4), "b_enc": random(6), "W_dec": random(6, 4), "b_dec": random(4)}
    given |= {"activation": RELU, "site": "resid_post"}
    if "site" in changed:  # the type checker of the tests would be first
        object.__setattr__(own := SAE(**given), "site", "ln")
        with pytest.raises(ValueError, match=message):
            own.__post_init__()
        return
    with pytest.raises(ValueError, match=message):
        SAE(**given | changed)


def test_a_skip_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"W_skip has shape \(3, 4\), and W_enc asks for \(4, 4\)"):
        Transcoder(0, random(6, 4), random(6), random(6, 4), random(4), RELU, random(3, 4))


def test_an_sae_behind_a_post_norm_names_its_features_by_the_site():
    own = SAE(1, random(6, 4), random(6), random(6, 4), random(4), RELU, "mlp_out_normed")
    assert str(own.node(3)) == "1.mlp_out.feature:3"
