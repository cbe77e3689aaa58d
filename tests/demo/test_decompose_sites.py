import torch

from demo.small import untrained
from whence.demo.decompose_sites import linear_maps, observed, run_with
from whence.demo.tokenizer import documents, vocabulary

IDS = documents(3, 2, 12, vocabulary())


def test_every_matrix_of_every_block_is_found_under_its_canonical_name():
    model = untrained()
    maps = linear_maps(model)
    ends = ("attn.q", "attn.k", "attn.v", "attn.o", "glu.gate", "glu.up", "glu.down")
    assert list(maps) == [f"{layer}.{end}" for layer in range(2) for end in ends]
    assert maps["1.glu.down"] is model.model.layers[1].mlp.down_proj


def test_what_is_observed_is_what_each_matrix_is_given():
    model = untrained()
    maps = linear_maps(model)
    logits, inputs = observed(model, maps, IDS)
    assert torch.equal(logits, model(IDS).logits)
    assert inputs["0.attn.q"] is inputs["0.attn.k"]
    mlp = model.model.layers[1].mlp
    gate, up = inputs["1.glu.gate"], inputs["1.glu.up"]
    assert torch.allclose(inputs["1.glu.down"], mlp.act_fn(mlp.gate_proj(gate)) * mlp.up_proj(up))


def test_a_matrix_s_output_put_back_changes_nothing_and_zeros_do():
    model = untrained()
    maps = linear_maps(model)
    plain = model(IDS).logits
    assert torch.allclose(run_with(model, maps, IDS, lambda site, given, _: given @ maps[site].weight.T), plain)
    without = run_with(model, maps, IDS, lambda site, given, output: torch.zeros_like(output))
    embedded = model.model.norm(model.model.embed_tokens(IDS))
    assert torch.allclose(without, model.lm_head(embedded), atol=1e-6)
    assert torch.equal(model(IDS).logits, plain)  # no hook stays
