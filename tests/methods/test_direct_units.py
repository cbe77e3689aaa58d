"""Single units against writes made explicit from the weights and removed from the stream (`by_hand`)."""

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

import families
import whence
from by_hand import Slow, block, calls, final_norm, held, matrix, paths, submodule

IDS = families.prompts(2, 6, seed=3)
TOKEN = 9
UNITS = {"attn": ("head", "attn.head"), "mlp": ("neuron", "mlp.neuron"), "ssm": ("channel", "ssm.channel")}


@cache
def double(name: str) -> tuple[torch.nn.Module, whence.Model]:
    hf = families.tiny(name, torch.float64)
    return hf, whence.Model(hf)


def row(scores: whence.Scores, key: str) -> Tensor:
    return scores.values[scores.keys.index(whence.Node.parse(key))]


def close(one: Tensor, other: Tensor, scores: whence.Scores) -> bool:
    """Equal up to a share of the strongest row; families with RMS norms take them in float32."""
    return bool((one - other).abs().max() <= 2e-6 * scores.values.abs().max())


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("name", families.EVERY)
def test_a_units_score_is_what_its_explicit_write_does_to_the_logit(name: str, kind: str) -> None:
    hf, model = double(name)
    slow, (by, node) = Slow(hf, IDS), UNITS[kind]
    here = [i for i in range(model.n_layers) if submodule(block(hf, i), paths(hf).get(kind, "none")) is not None]
    if not here:
        with pytest.raises(ValueError, match="not among"):
            row(whence.direct_logit_attribution(model, IDS, TOKEN), f"0.{kind}")
        return
    scores = whence.direct_logit_attribution(model, IDS, TOKEN, by=by, position=None)
    generator = torch.Generator().manual_seed(len(name))
    for layer in here:
        width = matrix(submodule(block(hf, layer), paths(hf)[kind])).shape[1]
        count = 4 if kind == "attn" else width
        unit, size = int(torch.randint(count, (), generator=generator)), width // count
        expected = slow.effect(slow.write(kind, layer, slice(unit * size, (unit + 1) * size)), TOKEN)
        assert close(row(scores, f"{layer}.{node}:{unit}"), expected, scores), layer


@pytest.mark.parametrize("name", families.EVERY)
def test_a_components_score_is_the_change_when_its_write_is_taken_out_of_the_stream(name: str) -> None:
    hf, model = double(name)
    slow = Slow(hf, IDS)
    scores = whence.direct_logit_attribution(model, IDS, TOKEN, position=None)
    for kind in UNITS:
        for layer in range(model.n_layers):
            last = submodule(block(hf, layer), paths(hf).get(kind, "none"))
            if last is None:
                continue
            (call,), _ = calls(hf, IDS, last)
            whole = slow.after(kind, layer, call[1].reshape(*IDS.shape, -1))
            score = row(scores, f"{layer}.{kind}")
            if whence.Node(f"{kind}.bias", layer) in scores.keys:
                score = score + row(scores, f"{layer}.{kind}.bias")
            assert close(score, slow.effect(whole, TOKEN), scores), (kind, layer)


@pytest.mark.parametrize("name", ["mamba2", "falcon_h1", "qwen3_next"])
def test_an_ssm_heads_score_is_that_of_its_channels(name: str) -> None:
    _, model = double(name)
    heads = whence.direct_logit_attribution(model, IDS, TOKEN, by="head", position=None)
    channels = whence.direct_logit_attribution(model, IDS, TOKEN, by="channel", position=None)
    count = sum(key.name == "ssm.head" and key.layer == 0 for key in heads.keys)
    width = sum(key.name == "ssm.channel" and key.layer == 0 for key in channels.keys) // count
    own = [row(channels, f"0.ssm.channel:{i}") for i in range(2 * width, 3 * width)]
    assert torch.allclose(row(heads, "0.ssm.head:2"), torch.stack(own).sum(0), atol=1e-12)


# ------------------------------------------------------------ what heads read
def attend(name: str, **settings: object) -> tuple[torch.nn.Module, whence.Model]:
    hf = families.fresh(name, torch.float64, **settings)
    hf.set_attn_implementation("eager")
    return hf, whence.Model(hf)


def values_of(hf: torch.nn.Module, layer: int) -> Tensor:
    """[example, head, key, d_head], from the value projection."""
    here = block(hf, layer)
    if hf.config.model_type == "gpt2":
        (call,), _ = calls(hf, IDS, here.attn.c_attn)
        return call[1].chunk(3, -1)[2].unflatten(-1, (4, -1)).transpose(1, 2)
    (call,), _ = calls(hf, IDS, here.self_attn.v_proj)
    value = call[1].unflatten(-1, (hf.config.num_key_value_heads, -1)).transpose(1, 2)
    return value.repeat_interleave(4 // value.shape[1], dim=1)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma2", "gpt_oss", "gpt_oss window", "mistral window"])
def test_a_source_tokens_score_is_its_pattern_weighted_value_pushed_forward(name: str) -> None:
    hf, model = attend(name)
    slow = Slow(hf, IDS)
    scores = whence.direct_logit_attribution(model, IDS, TOKEN, by="source_token", position=None)
    patterns = calls(hf, IDS, output_attentions=True)[1].attentions
    for layer, head, source in ((0, 3, 2), (1, 0, 0), (2, 1, 4)):
        last = submodule(block(hf, layer), paths(hf)["attn"])
        value = values_of(hf, layer)[:, head, source]
        columns = matrix(last)[:, head * value.shape[-1] : (head + 1) * value.shape[-1]]
        part = patterns[layer][:, head, :, source, None] * (value @ columns.T)[:, None]
        expected = slow.effect(slow.after("attn", layer, part), TOKEN)
        score = row(scores, f"{layer}.attn.head:{head}~{source}")
        assert close(score, expected, scores)
        assert bool((score[:, :source] == 0).all())  # nothing is read from the future
    assert bool((scores.values != 0).any())


# ------------------------------------------------------------ experts
def routed(name: str, logits: Tensor) -> Tensor:
    """[row, expert] routing weights, by each family's published rule."""
    if name == "gpt_oss":
        best = logits.topk(2, -1)
        return torch.zeros_like(logits).scatter(-1, best.indices, best.values.softmax(-1))
    best = logits.softmax(-1).topk(2, -1)
    share = best.values / best.values.sum(-1, keepdim=True) if name == "mixtral" else best.values
    return torch.zeros_like(logits).scatter(-1, best.indices, share)


def expert_neurons(name: str, experts: torch.nn.Module, expert: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """What an expert's last map reads, and that map [d_model, neuron]."""
    if name == "gpt_oss":
        both = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
        gate, up = both[..., ::2].clamp(max=7.0), both[..., 1::2].clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate), experts.down_proj[expert].T
    gate, up = linear(x, experts.gate_up_proj[expert]).chunk(2, -1)
    return silu(gate) * up, experts.down_proj[expert]


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen2_moe", "gpt_oss"])
def test_experts_and_their_neurons_are_what_their_explicit_writes_do(name: str) -> None:
    hf, model = double(name)
    slow = Slow(hf, IDS)
    by_expert = whence.direct_logit_attribution(model, IDS, TOKEN, by="expert", position=None)
    by_neuron = whence.direct_logit_attribution(model, IDS, TOKEN, by="neuron", position=None)
    layer = 1
    mlp = block(hf, layer).mlp
    router = mlp.router if name == "gpt_oss" else mlp.gate
    (call,), _ = calls(hf, IDS, mlp)
    x = call[0][0]
    weights = routed(name, linear(x, router.weight, getattr(router, "bias", None)))
    for expert in range(4):
        hidden, down = expert_neurons(name, mlp.experts, expert, x)
        hidden = hidden * weights[..., expert, None]
        expected = slow.effect(hidden @ down.T, TOKEN)
        assert close(row(by_expert, f"{layer}.moe.expert:{expert}"), expected, by_expert)
        expected = slow.effect(hidden[..., [7]] @ down[:, [7]].T, TOKEN)
        assert close(row(by_neuron, f"{layer}.moe.neuron:{expert}/7"), expected, by_neuron)
    if name == "gpt_oss":
        bias = slow.effect(weights @ mlp.experts.down_proj_bias, TOKEN)
        assert close(row(by_expert, f"{layer}.moe.bias"), bias, by_expert)


def test_a_shared_experts_write_is_weighted_by_its_gate() -> None:
    hf, model = double("qwen2_moe")
    slow = Slow(hf, IDS)
    mlp = block(hf, 1).mlp
    (shared, gate), _ = calls(hf, IDS, mlp.shared_expert, mlp.shared_expert_gate)
    write = (gate[1].sigmoid() * shared[1]).reshape(*IDS.shape, -1)
    scores = whence.direct_logit_attribution(model, IDS, TOKEN, by="expert", position=None)
    assert close(row(scores, "1.moe.shared"), slow.effect(write, TOKEN), scores)


# ------------------------------------------------------------ constants and embeddings
@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "gemma2", "granite", "phi"])
def test_embeddings_and_constants_are_their_explicit_contributions(name: str) -> None:
    hf, model = double(name)
    slow = Slow(hf, IDS)
    scores = whence.direct_logit_attribution(model, IDS, TOKEN, position=None)
    embedding = hf.get_input_embeddings()(IDS).detach()
    embedding = embedding * (12.0 if name == "granite" else 1.0)
    if name in ("gpt2", "opt"):
        table = hf.transformer.wpe.weight if name == "gpt2" else hf.model.decoder.embed_positions.weight[2:]
        position = table[: IDS.shape[1]].expand(2, -1, -1).detach()
        assert close(row(scores, "pos_embed"), slow.effect(position, TOKEN), scores)
    assert close(row(scores, "embed"), slow.effect(embedding, TOKEN), scores)
    if name in ("gpt2", "opt", "phi"):
        bias = slow.read(torch.zeros_like(slow.stream))[..., TOKEN]  # what is left of an empty stream
        head = getattr(hf.get_output_embeddings(), "bias", None)
        own = row(scores, "final_norm.bias") + (0 if head is None else row(scores, "output.bias"))
        assert close(own, bias, scores)
        bias = block(hf, 1).get_submodule(paths(hf)["mlp"]).bias.detach().expand_as(slow.stream)
        assert close(row(scores, "1.mlp.bias"), slow.effect(bias, TOKEN), scores)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_scores_are_finite_differences_of_the_logit_along_each_write(name: str) -> None:
    hf, model = double(name)
    (norm,), _ = calls(hf, IDS, final_norm(hf))
    stream = norm[0][0]
    frozen = held(final_norm(hf), stream)
    slow = Slow(hf, IDS)
    write = slow.write("mlp", 1, slice(0, 1))
    with torch.no_grad():
        up, down = (hf.get_output_embeddings()(frozen(stream + h * write))[..., TOKEN] for h in (0.5, -0.5))
        raw = hf.get_output_embeddings()(frozen(stream))[..., TOKEN]
    scores = whence.direct_logit_attribution(model, IDS, TOKEN, by="neuron", position=None)
    assert close(row(scores, "1.mlp.neuron:0"), (up - down) * slow.logits[..., TOKEN] / raw, scores)
