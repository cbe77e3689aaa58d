import pytest
import torch

from demo.small import exact_saes, untrained
from whence.components.activation import Activation
from whence.components.dictionaries import CrossLayerTranscoder
from whence.components.sets import DictionarySet
from whence.demo.sites import rebuilder, record, replaced
from whence.demo.tokenizer import documents, vocabulary

IDS = documents(1, 6, 20, vocabulary())


@pytest.fixture(scope="module")
def model():
    return untrained()


@torch.no_grad()
def test_the_recorded_stream_is_the_model_s_own_without_position_0(model):
    states = model(IDS, output_hidden_states=True).hidden_states
    found = record(model, IDS, "resid_post", batch=4)
    assert found.shape == (2, 6 * 19, 16)
    assert torch.allclose(found[0], states[1][:, 1:].flatten(0, 1), atol=1e-6)


@torch.no_grad()
def test_the_recorded_sublayers_add_up_to_the_stream(model):
    before = record(model, IDS, "resid_post")[0]
    attention, mlp = (record(model, IDS, site)[1] for site in ("attn_out", "mlp_out"))
    assert torch.allclose(before + attention + mlp, record(model, IDS, "resid_post")[1], atol=1e-5)


@torch.no_grad()
def test_the_mlp_s_recorded_input_gives_its_recorded_output(model):
    rebuilt = model.model.layers[1].mlp(record(model, IDS, "mlp_in")[1])
    assert torch.allclose(rebuilt, record(model, IDS, "mlp_out")[1], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("site", ["resid_post", "attn_out", "mlp_out"])
def test_an_exact_dictionary_in_place_changes_nothing(model, site):
    plain = model(IDS).logits
    with replaced(model, site, site, rebuilder(exact_saes(site)), (0, 1)):
        assert torch.allclose(model(IDS).logits, plain, atol=1e-5)


@torch.no_grad()
def test_position_0_and_the_layers_not_asked_for_stay_as_they_are(model):
    at_0 = model(IDS).logits[:, 0]
    with replaced(model, "resid_post", "resid_post", lambda layer, old: torch.zeros_like(old), (0,)):
        first, second = record(model, IDS, "resid_post")
        assert torch.equal(model(IDS).logits[:, 0], at_0)
    assert first.abs().max() == 0
    assert second.abs().max() > 0


@torch.no_grad()
def test_hooks_are_removed_also_after_an_error(model):
    plain = model(IDS).logits

    def fail(layer, old):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), replaced(model, "mlp_in", "mlp_out", fail, (0, 1)):
        model(IDS)
    assert torch.equal(model(IDS).logits, plain)


@torch.no_grad()
def test_a_cross_layer_transcoder_in_place_writes_what_it_decodes(model):
    g = torch.Generator().manual_seed(0)
    decoders = tuple(torch.randn(8, 2 - source, 16, generator=g) for source in range(2))
    encoder, bias = torch.randn(2, 8, 16, generator=g), torch.randn(2, 16, generator=g)
    zeros = (torch.zeros(8), torch.zeros(8))
    own = CrossLayerTranscoder(tuple(encoder), zeros, decoders, tuple(bias), Activation("topk", k=3))
    with replaced(model, "mlp_in", "mlp_out", rebuilder(DictionarySet((own,))), (0, 1)):
        reads, writes = record(model, IDS, "mlp_in"), record(model, IDS, "mlp_out")
    assert torch.allclose(own.decode(own.encode(reads)), writes, atol=1e-4)


def test_a_site_the_demo_does_not_hook_is_refused(model):
    with pytest.raises(ValueError, match="do not know the site 'resid_mid'"):
        record(model, IDS, "resid_mid")
