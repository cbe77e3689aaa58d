"""Numbers other than logits: metrics at first order, directions, pre-activations."""

import pytest
import torch
from torch import Tensor

import families
import whence
from by_hand import block, calls, final_norm, held

IDS = families.prompts(2, 6, seed=9)


def model_of(name: str, dtype: torch.dtype = torch.float32) -> whence.Model:
    return whence.Model(families.tiny(name, dtype))


def attribute(model: whence.Model, targets: object, **options: object) -> whence.Scores:
    return whence.direct_logit_attribution(model, IDS, targets, **{"position": None, **options})


def row(scores: whence.Scores, key: str) -> Tensor:
    return scores.values[scores.keys.index(whence.Node.parse(key))]


def closes(scores: whence.Scores, share: float = 1e-5) -> bool:
    return float((scores.remainder.abs() / scores.magnitude).max()) <= share


# ------------------------------------------------------------ metrics
REFERENCE = torch.randn(64, generator=torch.Generator().manual_seed(0))


def nats(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


METRICS = {
    "p": (whence.probability(5), lambda logits: nats(logits)[..., 5].exp()),
    "log p": (whence.log_probability(5), lambda logits: nats(logits)[..., 5]),
    "kl": (
        whence.kl_divergence(REFERENCE),
        lambda logits: (nats(REFERENCE).exp() * (nats(REFERENCE) - nats(logits))).sum(-1),
    ),
    "metric": (whence.metric(lambda z: z[3] * z[4] - z[5].square()), lambda z: z[..., 3] * z[..., 4] - z[..., 5] ** 2),
    "callable": (lambda z: z[3] - 2 * z[4], lambda z: z[..., 3] - 2 * z[..., 4]),
}  # fmt: skip


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "cohere", "granite", "gptj"])
def test_a_metrics_rows_are_its_gradient_through_the_models_own_head_times_each_write(name: str, kind: str) -> None:
    model, (target, function) = model_of(name, torch.float64), METRICS[kind]
    scores = attribute(model, target)
    (norm,), result = calls(model.hf, IDS, final_norm(model.hf))
    assert torch.allclose(scores.target, function(result.logits), atol=1e-6)
    stream = norm[0][0].clone().requires_grad_()
    y = held(final_norm(model.hf), norm[0][0])(stream)
    raw = model.hf.get_output_embeddings()(y) * model.layout.logit_scale
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    value = function(cap * (raw / cap).tanh() if cap else raw)
    (gradient,) = torch.autograd.grad(value.sum(), stream)
    assert torch.allclose(scores.values[[key.layer is not None or "embed" in key.name for key in scores.keys]].sum(0),
                          (gradient * stream).sum(-1), atol=1e-6)  # fmt: skip
    (call,), _ = calls(model.hf, IDS, model.layout.blocks[0])
    embedded = (gradient * call[0][0]).sum(-1)
    own = row(scores, "embed") + (row(scores, "pos_embed") if name == "gpt2" else 0)
    assert torch.allclose(own, embedded, atol=1e-6)
    first_order = scores.values[[key.name != "nonlinear" for key in scores.keys]].sum(0)
    assert torch.allclose(row(scores, "nonlinear"), scores.target - first_order, atol=1e-6)
    assert closes(scores, 1e-7)


def test_a_linear_metric_has_nothing_left_over_and_a_curved_one_has() -> None:
    model = model_of("llama", torch.float64)
    linear, curved = (attribute(model, METRICS[kind][0]) for kind in ("callable", "log p"))
    assert float(row(linear, "nonlinear").abs().max()) < 1e-6
    assert float(row(curved, "nonlinear").abs().min()) > 1e-3


def test_several_metrics_are_several_targets_with_their_names() -> None:
    scores = attribute(model_of("llama"), [whence.probability(5), whence.metric(lambda z: z[0], "first")], by="head")
    assert scores.axes == ("node", "example", "position", "target")
    assert scores.target_labels[0] == ("p('5')", "first")
    assert closes(scores)


def test_the_divergence_from_oneself_is_zero_and_flat() -> None:
    model = model_of("llama", torch.float64)
    scores = whence.dla(model, IDS[:1], whence.kl_divergence(model.logits(IDS[:1])[0, 0]))
    assert float(scores.target.abs()) < 1e-6
    assert float(scores.values.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (whence.metric(lambda z: torch.tensor(1.0), "constant"), "constant: its value does not depend on the logits"),
        (whence.metric(lambda z: z[0] * float("nan"), "broken"), "broken: its value is nan at these logits"),
        (whence.metric(lambda z: z[:2], "wide"), "wide: a metric returns a 0-d tensor"),
        (whence.metric(lambda z: 1.0, "plain"), "plain: a metric returns a 0-d tensor"),
    ],
)
def test_metrics_that_cannot_be_explained_are_refused(target: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(model_of("llama"), target)


# ------------------------------------------------------------ directions
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_a_direction_is_read_behind_the_final_norm_and_never_capped(name: str) -> None:
    model = model_of(name)
    (norm,), _ = calls(model.hf, IDS, final_norm(model.hf))
    vectors = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(1))
    triples = [whence.CustomTarget("one", 1.0, vectors[0]), ("two", 0.5, vectors[1])]
    scores = attribute(model, triples, by="head")
    assert torch.allclose(scores.target, norm[1] @ vectors.T, atol=1e-4)
    assert scores.target_labels == (("one", "two"),) * 2
    assert closes(scores)
    assert whence.Node("output.bias") not in scores.keys
    alone = attribute(model, triples[0], by="head")
    assert torch.allclose(alone.values, scores.values[..., 0], atol=1e-6)


def test_attribution_targets_and_concepts_are_directions() -> None:
    model = model_of("llama")
    chosen = whence.AttributionTargets(torch.tensor([5, 6]), model=model, logits=model.logits(IDS)[0, 0])
    tokens = attribute(model, [5, 6])
    assert torch.allclose(attribute(model, chosen).values, tokens.values, atol=1e-5)
    concept = attribute(model, whence.concept_direction(model, [5], [6]))
    assert torch.allclose(concept.values, tokens.values[..., 0] - tokens.values[..., 1], atol=1e-5)


# ------------------------------------------------------------ pre-activations
READERS = {  # the module, and the row of its output, that hold neuron 5
    "llama": ("mlp.up_proj", ".up", 5),
    "llama biased": ("mlp.gate_proj", ".gate", 5),
    "phi3": ("mlp.gate_up_proj", ".up", 5 + 64),
    "phi3 gate": ("mlp.gate_up_proj", ".gate", 5),
    "gpt2": ("mlp.c_fc", "", 5),
    "opt": ("fc1", "", 5),
    "olmo2": ("mlp.up_proj", ".up", 5),
    "gemma2": ("mlp.gate_proj", ".gate", 5),
    "gpt_neox": ("mlp.dense_h_to_4h", "", 5),
    "gpt_neox sequential": ("mlp.dense_h_to_4h", "", 5),
    "phi": ("mlp.fc1", "", 5),
    "falcon_h1": ("feed_forward.up_proj", ".up", 5),
    "recurrent_gemma": ("mlp_block.gate_proj", ".gate", 5),
    "starcoder2": ("mlp.c_fc", "", 5),
}


@pytest.mark.parametrize("name", READERS)
def test_a_neurons_preactivation_is_explained_by_what_was_written_before_it(name: str) -> None:
    path, end, column = READERS[name]
    model = model_of(name.removesuffix(" gate"))
    (call,), _ = calls(model.hf, IDS, block(model.hf, 2).get_submodule(path))
    seen = call[1].reshape(*IDS.shape, -1)[..., column]
    for by in ("component", "head", "neuron"):
        scores = attribute(model, whence.activation(f"2.mlp.neuron:5{end}"), by=by)
        assert torch.allclose(scores.target, seen, atol=1e-4)
        assert closes(scores)
    written = {key.name.partition(".")[0] for key in scores.keys if key.layer == 2 and not key.name.startswith("resid")}
    assert written == {"gpt_neox": set(), "phi": set(), "falcon_h1": {"attn", "ssm"}}.get(name, {"attn"})
    assert f"2.{'resid_mid' if written else 'resid_pre'}.bias" in [str(key) for key in scores.keys]
    assert whence.Node("mlp.neuron", 1, 5) in scores.keys


def test_a_neurons_parts_are_its_input_weights_times_each_write_through_its_norm() -> None:
    model = model_of("gpt2", torch.float64)
    here = block(model.hf, 1)
    scores = attribute(model, whence.activation("1.mlp.neuron:5"))
    (norm, attn), _ = calls(model.hf, IDS, here.ln_2, here.attn.c_proj)
    frozen, zero = held(here.ln_2, norm[0][0]), torch.zeros_like(norm[0][0])
    with torch.no_grad():
        part = frozen(attn[1] - here.attn.c_proj.bias) - frozen(zero)
        expected = part @ here.mlp.c_fc.weight[:, 5]
        constant = frozen(zero) @ here.mlp.c_fc.weight[:, 5] + here.mlp.c_fc.bias[5]
    assert torch.allclose(row(scores, "1.attn"), expected, atol=1e-9)
    assert torch.allclose(row(scores, "1.resid_mid.bias"), constant, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "key", "error", "message"),
    [
        ("llama", "1.mlp.neuron:5", ValueError, r"name its end, 1.mlp.neuron:5.gate or 1.mlp.neuron:5.up"),
        ("gpt2", "1.mlp.neuron:5.up", ValueError, "this MLP is not gated; leave the end out"),
        ("llama", "9.mlp.neuron:5.up", ValueError, "the model has layers 0 to 2"),
        ("llama", "1.mlp.neuron:64.up", ValueError, "neurons 0 to 63"),
        ("phi3", "1.mlp.neuron:64.gate", ValueError, "neurons 0 to 63"),
        ("gpt2", "1.mlp.neuron:128", ValueError, "neurons 0 to 127"),
        ("mamba", "1.mlp.neuron:5", NotImplementedError, "layer 1 has no MLP whose neurons can be read; it holds ssm"),
        ("mixtral", "1.mlp.neuron:5", NotImplementedError, "it holds attn, moe"),
        ("llama", "1.attn_out.feature:5", NotImplementedError, "does not read the stream"),
        ("llama", "1.mlp.feature:5", ValueError, "was not given; pass it as dictionary="),
    ],
)
def test_units_that_cannot_be_targets_are_refused(name: str, key: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        attribute(model_of(name), whence.activation(key))
