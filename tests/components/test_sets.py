import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.small_dictionaries import TOP_2, cross_layer, transcoders, weights
from whence.components.activation import Activation
from whence.components.dictionaries import SAE, Transcoder
from whence.components.sets import DictionarySet, as_dictionary_set


def test_a_set_is_indexed_by_layer_and_kept_in_order():
    low, high = transcoders(1, 4)
    found = DictionarySet((high, low))
    assert found.layers == (1, 4)
    assert list(found) == [low, high]
    assert found[4] is high
    assert low in found


def test_a_missing_layer_is_named_with_those_there_are():
    with pytest.raises(IndexError, match="no transcoder reads layer 2; this set has layers 1, 4"):
        DictionarySet(tuple(transcoders(1, 4)))[2]


def test_a_cross_layer_transcoder_serves_every_layer():
    own = cross_layer()
    found = DictionarySet((own,))
    assert (found.layers, len(found), found.kind) == ((0, 1, 2), 1, "cross_layer_transcoder")
    assert found[2] is own


@pytest.mark.parametrize(
    ("dictionaries", "message"),
    [
        ((), "one kind and site"),
        ((*transcoders(0), SAE(1, *weights(1), TOP_2, "mlp_out")), "one kind and site"),
        ((SAE(0, *weights(0), TOP_2, "mlp_out"), SAE(1, *weights(1), TOP_2, "attn_out")), "one kind and site"),
        ((*transcoders(2), *transcoders(2)), "one dictionary a layer"),
        ((cross_layer(), cross_layer()), "holds one of them"),
    ],
)
def test_what_makes_no_set_is_refused(dictionaries, message):
    with pytest.raises(ValueError, match=message):
        DictionarySet(dictionaries)


def test_a_set_answers_by_layer_with_rows():
    own, index = DictionarySet((cross_layer(),)), torch.tensor([4, 1, 4])
    (one,) = own
    rows, biases = own.encoder(1, index)
    assert torch.equal(rows, one.W_enc[1][index])
    assert torch.equal(biases, one.b_enc[1][index])
    assert torch.equal(own.decoder(1, index, 2), one.W_dec[1][index, 1])
    assert torch.equal(own.decoder_bias(2), one.b_dec[2])
    assert own.skip(0) is None
    assert str(own.node(2, 5)) == "2.mlp.feature:5"
    assert (own.d_model, own.n_features(1), own.written(1), own.reads, own.writes) == (
        4,
        6,
        (1, 2),
        "mlp_in",
        "mlp_out",
    )


ACTIVATIONS = {
    "relu": Activation("relu"),
    "topk": Activation("topk", k=5),
    "topk_signed": Activation("topk", k=5, relu=False),
    "groupmax": Activation("groupmax", k=6),
    "jumprelu": Activation("jumprelu", threshold=torch.linspace(-1, 1, 30, dtype=torch.float64)),
    "batchtopk": Activation("batchtopk", threshold=torch.tensor(0.7, dtype=torch.float64), relu=False),
}


@given(st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 6))
def test_the_active_features_are_those_of_the_dense_encoder(name, seed, chunk, positions):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(*shape, generator=generator).double() for shape in ((30, 4), (30,), (30, 4), (4,))]
    own, x = SAE(0, *tensors, ACTIVATIONS[name], "resid_post"), torch.randn(positions, 4, generator=generator).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whence.components.encoder.CHUNK", chunk)
        found = DictionarySet((own,)).active(0, x)
    pre = x @ own.W_enc.T + own.b_enc
    dense = own.activation(pre)
    assert torch.equal(torch.stack([found.position, found.feature], 1), dense.nonzero())
    assert torch.allclose(found.activation, dense[found.position, found.feature], atol=1e-12)
    assert torch.allclose(found.pre_activation, pre[found.position, found.feature], atol=1e-12)
    assert found.activation.dtype == torch.float64


def test_16_bit_weights_in_memory_are_handed_out_in_32_bits():
    own = DictionarySet((Transcoder(0, *(tensor.bfloat16() for tensor in weights(0)), TOP_2),))
    rows, biases = own.encoder(0, torch.tensor([1]))
    assert {rows.dtype, biases.dtype, own.decoder_bias(0).dtype, own.decoder(0, torch.tensor([1]), 0).dtype} == {
        torch.float32
    }
    assert own.active(0, torch.randn(3, 4)).activation.dtype == torch.float32


def test_a_set_that_does_not_fit_names_both_shapes():
    own = DictionarySet(tuple(transcoders(0, 2)))
    own.check_fits(4, 3)
    with pytest.raises(ValueError, match=r"for layer 2; the model has layers 0 to 1"):
        own.check_fits(4, 2)
    with pytest.raises(ValueError, match=r"has shape \(6, 4\), and \(6, 8\) is wanted"):
        own.check_fits(8, 3)


def test_a_cross_layer_transcoder_that_writes_past_the_model_does_not_fit():
    with pytest.raises(ValueError, match="for layer 2; the model has layers 0 to 1"):
        DictionarySet((cross_layer(),)).check_fits(4, 2)


def test_one_several_and_a_set_are_all_taken_as_a_set():
    low, high = transcoders(1, 4)
    found = as_dictionary_set([high, low])
    assert as_dictionary_set(found) is found
    assert found.layers == (1, 4)
    assert as_dictionary_set(low).layers == (1,)
    with pytest.raises(TypeError, match=r"holds a str; .*load_dictionary"):
        as_dictionary_set("saes")


def test_dictionaries_of_different_widths_make_no_set():
    with pytest.raises(ValueError, match=r"vectors of one width, got \[4, 5\]"):
        DictionarySet((*transcoders(0), Transcoder(1, *weights(1, d=5), TOP_2)))


def test_a_moved_set_says_the_same():
    own = DictionarySet(tuple(transcoders(0, 1)))
    assert own.to("cpu").describe() == own.in_memory().describe() == own.describe()
    assert "transcoder at mlp_in → mlp_out, layers 0-1, 6 features each" in repr(own)


def test_sets_that_differ_in_a_weight_have_different_fingerprints():
    one, other = transcoders(0)[0], transcoders(0)[0]
    other.W_dec[0, 0] += 1e-3
    assert DictionarySet((one,)).describe()["fingerprint"] != DictionarySet((other,)).describe()["fingerprint"]
