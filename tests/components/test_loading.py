import pytest
import torch

from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Transcoder
from whence.components.loading import DictionarySet, load_dictionary, save_dictionary
from whence.errors import FileFormatError
from whence.results import store

TOP_2 = Activation("topk", k=2)


def weights(seed, features=6, d=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in ((features, d), (features,), (features, d), (d,))]


def transcoders(*layers):
    return [Transcoder(layer, *weights(layer), TOP_2) for layer in layers]


def cross_layer(layers=3):
    generator = torch.Generator().manual_seed(0)
    decoders = tuple(torch.randn(6, layers - source, 4, generator=generator) for source in range(layers))
    encoder, bias = torch.randn(layers, 6, 4, generator=generator), torch.randn(layers, 6, generator=generator)
    return CrossLayerTranscoder(encoder, bias, decoders, torch.randn(layers, 4, generator=generator), TOP_2)


def fields(dictionary):
    return {name: value for name, value in vars(dictionary).items() if not isinstance(value, torch.Tensor | tuple)}


def tensors(dictionary):
    found = [value if isinstance(value, tuple) else (value,) for value in vars(dictionary).values()]
    return [tensor for group in found for tensor in group if isinstance(tensor, torch.Tensor)]


@pytest.mark.parametrize(
    "dictionaries",
    [
        transcoders(0, 1),
        [SAE(layer, *weights(layer), Activation("relu"), "attn_out") for layer in (2, 5)],
        [cross_layer()],
    ],
    ids=["transcoders", "saes", "cross layer"],
)
def test_what_is_saved_is_what_is_loaded(tmp_path, dictionaries):
    loaded = load_dictionary(save_dictionary(tmp_path / "kept", dictionaries))
    assert [fields(one) for one in loaded] == [fields(one) for one in dictionaries]
    for ours, theirs in zip(loaded, dictionaries, strict=True):
        assert type(ours) is type(theirs)
        assert all(torch.equal(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True))


def test_one_dictionary_is_saved_as_a_set_of_one(tmp_path):
    (own,) = transcoders(3)
    loaded = load_dictionary(save_dictionary(tmp_path / "kept", own))
    assert (len(loaded), loaded.layers, loaded.kind, loaded.site) == (1, (3,), "transcoder", "mlp_out")


def test_a_16_bit_file_is_half_as_large_and_loads_as_32_bit_numbers(tmp_path):
    own = Transcoder(0, *weights(0, features=2000), TOP_2)
    sizes = [
        next(save_dictionary(tmp_path / name, own, dtype=dtype).glob("*.safetensors")).stat().st_size
        for name, dtype in (("full", torch.float32), ("half", torch.float16))
    ]
    loaded = load_dictionary(tmp_path / "half")[0]
    assert sizes[1] < 0.51 * sizes[0]
    assert loaded.W_enc.dtype == torch.float32
    assert torch.equal(loaded.W_enc, own.W_enc.half().float())


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


def test_another_kind_of_result_is_refused(tmp_path):
    store.write(tmp_path / "kept", "scores", {}, {"values": torch.zeros(2)})
    with pytest.raises(FileFormatError, match="'scores'"):
        load_dictionary(tmp_path / "kept")


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"type": "transcoder", "layers": []},
        {"type": "lens", "layers": [{"layer": 0, "site": "mlp_out", "activation": {"kind": "relu", "k": None}}]},
        {"type": "transcoder", "layers": [{"layer": 0, "site": "mlp_out", "activation": {"kind": "jump", "k": None}}]},
    ],
)
def test_a_description_that_is_not_understood_is_refused(tmp_path, meta):
    names = zip(("W_enc", "b_enc", "W_dec", "b_dec"), weights(0), strict=True)
    store.write(tmp_path / "kept", "dictionary", meta, {f"0.{name}": tensor for name, tensor in names})
    with pytest.raises(FileFormatError, match="does not describe a set of dictionaries"):
        load_dictionary(tmp_path / "kept")
