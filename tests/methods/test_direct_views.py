"""Running sums, rows per layer, no constants, centred, folded biases, the strongest alone: all the same ledger."""

import pytest
import torch
from torch import Tensor

import families
import whence
from by_hand import Slow, block, calls, matrix, paths

IDS = families.prompts(2, 6, seed=5)
RAGGED = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
TOKEN = 9


def model_of(name: str, dtype: torch.dtype = torch.float32) -> whence.Model:
    return whence.Model(families.tiny(name, dtype))


def attribute(model: whence.Model, targets: object = TOKEN, **options: object) -> whence.Scores:
    return whence.direct_logit_attribution(model, options.pop("input", IDS), targets, **options)


def names(scores: whence.Scores) -> list[str]:
    return [str(key) for key in scores.keys]


def row(scores: whence.Scores, key: str) -> Tensor:
    return scores.values[scores.keys.index(whence.Node.parse(key))]


# ------------------------------------------------------------ running sums
@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("gpt2", "resid_mid resid_post"),
        ("gpt_neox", "resid_post"),  # attention and MLP read the same stream: nothing stands between them
        ("gpt_neox sequential", "resid_mid resid_post"),
        ("falcon_h1", "resid_mid resid_post"),  # attention beside an SSM, then an MLP
        ("recurrent_gemma", "resid_mid resid_post"),
        ("mamba", "resid_post"),
        ("jamba", "resid_mid resid_post"),
        ("qwen2_moe", "resid_mid resid_post"),
    ],
)
def test_running_sums_are_those_of_the_components_and_end_in_the_number_itself(name: str, sites: str) -> None:
    model = model_of(name)
    parts, running = (attribute(model, accumulated=on) for on in (False, True))
    expected = ["0.resid_pre"] + [f"{layer}.{site}" for layer in range(3) for site in sites.split()]
    assert names(running)[: len(expected)] == expected
    assert torch.allclose(running.values[-1], running.target, rtol=1e-4, atol=1e-5)
    order = [i for i, key in enumerate(parts.keys) if key.layer is None or key.layer <= 1]
    order = [i for i in order if not parts.keys[i].name.startswith(("final_norm", "output"))]
    assert torch.allclose(row(running, "1.resid_post"), parts.values[order].sum(0), atol=1e-5)
    layers = attribute(model, by="layer", accumulated=True)
    assert [key for key in names(layers) if "mid" in key] == []
    assert torch.allclose(row(layers, "1.resid_post"), row(running, "1.resid_post"), atol=1e-6)
    assert running.remainder.abs().max() < 1e-5 * parts.magnitude.max()


def test_running_sums_equal_the_held_norm_reading_the_stream_as_it_stands() -> None:
    hf = families.tiny("llama", torch.float64)
    slow = Slow(hf, IDS)
    running = attribute(whence.Model(hf), accumulated=True, position=None)
    for layer in range(3):
        (call,), _ = calls(hf, IDS, block(hf, layer))
        stream = call[1] if layer < 2 else slow.stream
        assert torch.allclose(row(running, f"{layer}.resid_post"), slow.effect(stream, TOKEN), atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama biased", "falcon_h1", "mamba", "qwen2_moe"])
def test_a_layers_row_is_the_sum_of_its_components(name: str) -> None:
    model = model_of(name)
    parts, layers = attribute(model, position=None), attribute(model, position=None, by="layer")
    assert {key.name for key in layers.keys if key.layer is not None} == {"block"}
    for layer in range(3):
        own = parts.values[[i for i, key in enumerate(parts.keys) if key.layer == layer]].sum(0)
        assert torch.allclose(row(layers, f"{layer}.block"), own, atol=1e-5)
    assert torch.equal(layers.target, parts.target)


def test_the_constant_of_an_explained_neuron_belongs_to_no_block() -> None:
    model = model_of("gpt2")
    target = whence.activation("1.mlp.neuron:5")
    assert names(attribute(model, target, by="layer")) == [
        "embed",
        "pos_embed",
        "0.block",
        "1.block",
        "1.resid_mid.bias",
    ]
    running = attribute(model, target, accumulated=True)
    assert names(running) == ["0.resid_pre", "0.resid_mid", "0.resid_post", "1.resid_mid", "1.resid_mid.bias"]
    assert torch.allclose(running.values[-1], running.target, atol=1e-5)


# ------------------------------------------------------------ constants
@pytest.mark.parametrize("options", [{}, {"by": "head"}, {"by": "layer"}, {"accumulated": True}])
def test_excluding_biases_drops_their_rows_and_what_they_explain(options: dict[str, object]) -> None:
    model = model_of("gpt2")
    full, without = attribute(model, position=None), attribute(model, position=None, bias="exclude", **options)
    constants = torch.tensor([key.name.endswith(".bias") for key in full.keys])
    assert constants.sum() == 7
    assert not [key for key in names(without) if key.endswith(".bias")]
    assert torch.allclose(without.target, full.target - full.values[constants].sum(0), atol=1e-5)
    assert float((without.remainder.abs() / without.magnitude).max()) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "cohere", "gptj"])
def test_a_centred_logit_is_the_logit_less_the_vocabularys_mean(name: str) -> None:
    model = model_of(name)
    with torch.no_grad():
        logits = model.hf(IDS).logits
    centred, plain = attribute(model, centered=True, position=None), attribute(model, position=None)
    assert torch.allclose(centred.target, logits[..., TOKEN] - logits.mean(-1), atol=1e-5)
    every = attribute(model, list(range(64)), position=None)
    shared = [centred.keys.index(key) for key in plain.keys]
    assert torch.allclose(centred.values[shared], plain.values - every.values.mean(-1), atol=1e-4)
    assert centred.target_labels[0][0].endswith("− mean")


@pytest.mark.parametrize("name", ["gpt2", "llama biased", "qwen2", "phi"])
@pytest.mark.parametrize("by", ["head", "component", "source_token"])
def test_folding_moves_exactly_what_value_biases_send_through_heads(name: str, by: str) -> None:
    """Qwen2 has value biases but no bias behind them: the row for it is made."""
    hf = families.tiny(name, torch.float64)
    model, slow = whence.Model(hf), Slow(hf, IDS)
    plain, folded = (attribute(model, by=by, position=None, fold_value_bias=on) for on in (False, True))
    layer = 1
    here = block(hf, layer)
    bias = here.attn.c_attn.bias[64:] if name == "gpt2" else here.self_attn.v_proj.bias
    bias = bias.detach().reshape(-1, 8).repeat_interleave(32 // bias.numel(), dim=0)
    columns = matrix(here.get_submodule(paths(hf)["attn"])).detach()
    moved = [slow.effect((columns[:, 8 * h : 8 * h + 8] @ bias[h]).expand_as(slow.stream), TOKEN) for h in range(4)]
    had = row(plain, f"{layer}.attn.bias") if name != "qwen2" else 0
    assert torch.allclose(row(folded, f"{layer}.attn.bias") - had, sum(moved), atol=1e-6)
    if by == "head":
        for head in range(4):
            before, after = (row(scores, f"{layer}.attn.head:{head}") for scores in (plain, folded))
            assert torch.allclose(before - after, moved[head], atol=1e-6)
    rest = [key for key in plain.keys if not key.name.startswith("attn")]
    assert torch.equal(
        torch.stack([row(plain, str(k)) for k in rest]), torch.stack([row(folded, str(k)) for k in rest])
    )


def test_folding_is_refused_where_a_value_bias_is_no_constant_or_cannot_be_read() -> None:
    with pytest.raises(NotImplementedError, match=r"layer 0 do not sum to 1 \(attention sinks\)"):
        attribute(model_of("gpt_oss"), by="head", fold_value_bias=True)
    with pytest.raises(NotImplementedError, match="attention of BloomForCausalLM cannot be read"):
        attribute(model_of("bloom"), by="head", fold_value_bias=True)


def test_without_attention_there_is_nothing_to_fold() -> None:
    model = model_of("mamba")
    plain, folded = (attribute(model, fold_value_bias=on) for on in (False, True))
    assert torch.equal(plain.values, folded.values)


# ------------------------------------------------------------ the strongest
@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("gpt2", "head"),
        ("gpt2", "neuron"),
        ("gemma2", "neuron"),
        ("mixtral", "neuron"),
        ("qwen2_moe", "expert"),
        ("jamba", "channel"),
        ("llama", "source_token"),
        ("jamba", ("head", "neuron")),
    ],
)
@pytest.mark.parametrize("input", [IDS, RAGGED])
@pytest.mark.parametrize("position", [-1, None])
def test_top_keeps_the_strongest_units_of_the_full_ledger_and_sums_the_rest(
    name: str, by: object, input: object, position: int | None
) -> None:
    model = model_of(name)
    full = attribute(model, [5, 6], input=input, by=by, position=position)
    few = attribute(model, [5, 6], input=input, by=by, position=position, top=5)
    units = [i for i, key in enumerate(full.keys) if key.index is not None]
    others = [i for i, key in enumerate(full.keys) if key.index is None]
    strength = full.values[units].abs().flatten(1).mean(1)
    best = {str(full.keys[units[i]]) for i in strength.topk(5).indices.tolist()}
    kept = [key for key in few.keys if key.index is not None]
    assert {str(key) for key in kept} == best
    for key in [*kept, *(full.keys[i] for i in others)]:
        assert torch.allclose(row(few, str(key)), row(full, str(key)), atol=1e-6)
    rest = [i for i in units if str(full.keys[i]) not in best]
    assert torch.allclose(row(few, "rest"), full.values[rest].sum(0), atol=2e-5)
    assert len(few.keys) == len(others) + 6


def test_top_beyond_the_number_of_units_keeps_them_all() -> None:
    full, few = (attribute(model_of("gpt2"), by="head", top=top) for top in (None, 1000))
    assert len(few.keys) == len(full.keys) + 1
    assert bool((row(few, "rest") == 0).all())


@pytest.mark.parametrize(("name", "by"), [("llama", "neuron"), ("gpt_neox", "head")])
def test_top_where_nothing_before_the_target_has_units_is_the_plain_ledger(name: str, by: str) -> None:
    target = whence.activation("0.mlp.neuron:5" + (".up" if name == "llama" else ""))
    plain, few = (attribute(model_of(name), target, by=by, top=top) for top in (None, 3))
    assert names(plain) == names(few)
    assert torch.allclose(plain.values, few.values)
