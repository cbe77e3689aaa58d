from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from components.small_dictionaries import TOP_2, cross_layer, transcoders, weights
from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Transcoder
from whence.components.lazy import LazyRows, whole
from whence.components.loading import load_dictionary, save_dictionary
from whence.components.sets import DictionarySet
from whence.errors import FileFormatError
from whence.results import store

THRESHOLDS = Activation("jumprelu", threshold=torch.tensor([0.1, -0.2, 0.3, 0.0, 1.0, 0.5]), relu=False)


def uneven():
    generator = torch.Generator().manual_seed(5)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return CrossLayerTranscoder(
        (random(6, 4), random(3, 4)), (random(6), random(3)),
        (random(6, 4, 4), random(3, 2, 4)), (random(4), random(4)),
        (THRESHOLDS, Activation("relu")), (1, 3), (random(4, 4), random(4, 4)), "resid_mid", "mlp_out_normed",
    )  # fmt: skip


def settings(dictionary):
    return [
        (dictionary.kind, layer, dictionary.reads, dictionary.writes, dictionary.encoder_of(layer).activation)
        for layer in dictionary.layers
    ]


def numbers(dictionary):
    for layer in dictionary.layers:
        encoder, skip = dictionary.encoder_of(layer), dictionary.skip_of(layer)
        yield from (whole(encoder.weight), encoder.bias, dictionary.bias_of(layer))
        yield from (whole(dictionary.decoder_of(layer, at)) for at in dictionary.written(layer))
        if skip is not None:
            yield skip


@pytest.mark.parametrize(
    "dictionaries",
    [
        transcoders(0, 1),
        [SAE(layer, *weights(layer), Activation("relu"), "attn_out") for layer in (2, 5)],
        [cross_layer()],
        [uneven()],
        [Transcoder(2, *weights(1), THRESHOLDS, torch.eye(4), "mlp_in_normalized", "mlp_out_normed")],
        [Transcoder(2, *(tensor.double() for tensor in weights(1)), TOP_2)],
        [SAE(2, *weights(1), Activation("batchtopk", threshold=torch.tensor(0.3)), "attn_z")],
        [SAE(0, *weights(1), Activation("groupmax", k=3), "embed")],
    ],
    ids=["transcoders", "saes", "cross layer", "uneven", "skip", "float64", "batchtopk", "groupmax"],
)
def test_what_is_saved_is_what_is_loaded(tmp_path, dictionaries):
    loaded = load_dictionary(save_dictionary(tmp_path / "kept", dictionaries))
    assert [settings(one) for one in loaded] == [settings(one) for one in dictionaries]
    for ours, theirs in zip(loaded, dictionaries, strict=True):
        pairs = list(zip(numbers(ours), numbers(theirs), strict=True))
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert loaded.describe() | {"source": None} == DictionarySet(tuple(dictionaries)).describe()


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
    assert isinstance(loaded.W_enc, LazyRows)
    assert whole(loaded.W_enc).dtype == torch.float32
    assert torch.equal(whole(loaded.W_enc), own.W_enc.half().float())


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


def test_a_format_that_is_none_is_refused_with_those_that_are_known(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(FileFormatError, match="circuit-tracer, SAELens, sparsify"):
        load_dictionary(tmp_path)


def test_a_layer_that_the_files_contradict_is_refused(tmp_path):
    save_dictionary(tmp_path / "kept", transcoders(3))
    assert load_dictionary(tmp_path / "kept", layer=3, site="transcoder").layers == (3,)
    with pytest.raises(ValueError, match="layer=2, and the files say layers 3"):
        load_dictionary(tmp_path / "kept", layer=2)
    with pytest.raises(ValueError, match="site='resid_post', and the files say 'transcoder'"):
        load_dictionary(tmp_path / "kept", site="resid_post")


def test_a_damaged_file_is_refused(tmp_path):
    (file,) = save_dictionary(tmp_path / "kept", transcoders(3)).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(FileFormatError, match="is damaged"):
        load_dictionary(tmp_path / "kept")


def test_a_cross_layer_transcoder_that_lost_the_skip_of_a_layer_is_refused_by_its_name(tmp_path):
    own = replace(cross_layer(), W_skip=tuple(torch.ones(3, 4, 4)))
    stored = store.locate(save_dictionary(tmp_path / "whole", own), kind="dictionary")
    tensors = load_file(stored.file)
    for lost in ("0.W_skip.0", "0.W_skip.2"):
        kept = {name: tensor for name, tensor in tensors.items() if name != lost}
        with pytest.raises(FileFormatError, match=f"no tensor '{lost}'"):
            load_dictionary(store.write(tmp_path / lost, "dictionary", stored.meta, kept))
