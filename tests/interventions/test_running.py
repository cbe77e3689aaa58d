"""Interventions change what they name and nothing else, as hooks written by hand would."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, fresh, loaded, prompts
from whence.errors import UnsupportedModelError
from whence.interventions.kinds import Intervention, ablate, patch, set_value, steer
from whence.interventions.running import intervene
from whence.interventions.session import Freeze
from whence.model.freeze import frozen
from whence.model.hooks import hooked, main_output
from whence.model.model import Model

PROMPT, OTHER = prompts()
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(5))


def by_hand(model: Model, path: str, side: str, change: Callable[[Tensor], Tensor], ids: Tensor = PROMPT) -> Tensor:
    """Logits with one tensor changed in a module named by its path, with PyTorch's own hooks."""
    module = model.hf.get_submodule(path)
    with ExitStack() as stack, torch.no_grad():
        if side == "in":
            hook = module.register_forward_pre_hook(lambda _, args: (change(args[0].clone()), *args[1:]))
        else:

            def after(_: Any, __: Any, output: Any) -> Any:
                new = change((output[0] if isinstance(output, tuple) else output).clone())
                return (new, *output[1:]) if isinstance(output, tuple) else new

            hook = module.register_forward_hook(after)
        stack.callback(hook.remove)
        return model.hf(input_ids=ids[None], use_cache=False).logits[0]


def clean(model: Model, path: str, side: str, ids: Tensor = PROMPT) -> Tensor:
    """The tensor itself."""
    seen: list[Tensor] = []
    by_hand(model, path, side, lambda x: seen.append(x) or x, ids)
    return seen[0]


def written(index: Any, value: Any) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x[index] = value(x[index]) if callable(value) else value
        return x

    return change


ALL = slice(None)
CASES: dict[str, tuple[Intervention, str, str, Any]] = {
    "mlp": (ablate("1.mlp"), "model.layers.1.mlp", "out", written(ALL, 0)),
    "mlp at": (ablate("1.mlp@3"), "model.layers.1.mlp", "out", written((0, 3), 0)),
    "attn": (steer("1.attn", scale=2.0), "model.layers.1.self_attn", "out", written(ALL, lambda x: 2 * x)),
    "head": (ablate("0.attn.head:1"), "model.layers.0.self_attn.o_proj", "in", written((ALL, ALL, slice(8, 16)), 0)),
    "head at": (
        set_value("0.attn.head:3@4", 0.5),
        "model.layers.0.self_attn.o_proj",
        "in",
        written((0, 4, slice(24, 32)), 0.5),
    ),
    "neuron": (set_value("2.mlp.neuron:7@5", 3.0), "model.layers.2.mlp.down_proj", "in", written((0, 5, 7), 3.0)),
    "embedding": (steer("embed@2", scale=0.5), "model.embed_tokens", "out", written((0, 2), lambda x: x / 2)),
    "stream before": (
        steer("1.resid_pre@2", add=VECTOR),
        "model.layers.1",
        "in",
        written((0, 2), lambda x: x + VECTOR),
    ),
    "stream after": (steer("1.resid_post", add=VECTOR), "model.layers.1", "out", written(ALL, lambda x: x + VECTOR)),
    "stream between": (
        steer("1.resid_mid@6", add=VECTOR),
        "model.layers.1.self_attn",
        "out",
        written((0, 6), lambda x: x + VECTOR),
    ),
    "z": (set_value("1.attn_z@2", VECTOR), "model.layers.1.self_attn.o_proj", "in", written((0, 2), VECTOR)),
    "attn_out": (set_value("1.attn_out@2", VECTOR), "model.layers.1.self_attn", "out", written((0, 2), VECTOR)),
    "mlp_out": (set_value("1.mlp_out@2", VECTOR), "model.layers.1.mlp", "out", written((0, 2), VECTOR)),
    "negative": (ablate("1.mlp", positions=-1), "model.layers.1.mlp", "out", written((0, 8), 0)),
    "slice": (ablate("1.mlp", positions=slice(-4, -2)), "model.layers.1.mlp", "out", written((0, slice(5, 7)), 0)),
    "several": (ablate("1.mlp", positions=[1, 4]), "model.layers.1.mlp", "out", written((0, [1, 4]), 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_does_what_a_hook_by_hand_does(case: str) -> None:
    model = loaded("llama")
    intervention, path, side, change = CASES[case]
    outcome = intervene(model, PROMPT, [intervention], position=None)
    torch.testing.assert_close(outcome.logits[0], by_hand(model, path, side, change), atol=1e-5, rtol=1e-5)
    plain = by_hand(model, path, side, lambda x: x)
    torch.testing.assert_close(outcome.clean_logits[0], plain, atol=1e-5, rtol=1e-5)
    assert float((outcome.logits[0] - plain).abs().max()) > 1e-3


def test_a_patch_brings_the_value_of_the_same_position() -> None:
    model, path = loaded("llama"), "model.layers.1.mlp"
    there = clean(model, path, "out", OTHER)
    outcome = intervene(model, PROMPT, [patch("1.mlp@4", OTHER)], position=None)
    torch.testing.assert_close(outcome.logits[0], by_hand(model, path, "out", written((0, 4), there[0, 4])))


def test_patching_the_whole_stream_gives_the_other_prompts_logits() -> None:
    model = loaded("llama")
    outcome = intervene(model, PROMPT, [patch("2.resid_post", OTHER)], position=None)
    torch.testing.assert_close(outcome.logits, model.logits(OTHER, position=None))


def test_a_mean_is_over_all_tokens_of_the_sources() -> None:
    model, path = loaded("llama"), "model.layers.1.mlp.down_proj"
    mean = torch.stack([clean(model, path, "in", ids)[0] for ids in prompts()]).mean((0, 1))[9]
    outcome = intervene(model, PROMPT, [ablate("1.mlp.neuron:9", "mean", source=prompts())], position=None)
    torch.testing.assert_close(outcome.logits[0], by_hand(model, path, "in", written((ALL, ALL, 9), mean)))


def test_a_mean_without_sources_is_the_prompts_own() -> None:
    model, path = loaded("llama"), "model.layers.1.mlp"
    mean = clean(model, path, "out")[0].mean(0)
    outcome = intervene(model, PROMPT, [ablate("1.mlp", "mean")], position=None)
    torch.testing.assert_close(outcome.logits[0], by_hand(model, path, "out", written(ALL, mean)), atol=1e-5, rtol=1e-5)


def test_resampling_draws_tokens_of_the_source_and_keeps_to_its_seed() -> None:
    model, seen = loaded("llama"), clean(loaded("llama"), "model.layers.1.mlp", "out", OTHER)[0]
    one = ablate("1.mlp", "resample", source=OTHER, seed=3)
    outcome = intervene(model, PROMPT, [one], position=None, watch=["1.mlp"])
    again = intervene(model, PROMPT, [one], position=None)
    assert torch.equal(outcome.logits, again.logits)
    nearest = torch.cdist(outcome.watched["1.mlp"].changed[0], seen).min(1)
    assert float(nearest.values.max()) < 1e-5
    assert len(nearest.indices.unique()) > 1


def test_a_pair_is_the_pattern_times_the_value_and_nothing_else() -> None:
    model, head, query, key = loaded("llama"), 3, 6, 2
    attention = model.trace(PROMPT, attention=True).attention[1]
    part = attention.pattern[0, head, query, key] * attention.value[0, head // 2, key]
    change = written((0, query, slice(8 * head, 8 * head + 8)), lambda z: z - part)
    outcome = intervene(model, PROMPT, [ablate(f"1.attn.head:{head}@{query}~{key}")], position=None)
    expected = by_hand(model, "model.layers.1.self_attn.o_proj", "in", change)
    torch.testing.assert_close(outcome.logits[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gptj", "gpt2"])
def test_every_pair_of_a_row_together_is_the_row(name: str) -> None:
    model = loaded(name)
    pairs = [ablate(f"1.attn.head:2@5~{key}") for key in range(6)]
    row, whole = [ablate("1.attn.head:2@5")], [ablate("1.attn.head:2@5"), ablate("1.attn.head:2@5~3")]
    first, second = intervene(model, PROMPT, [pairs, row], position=None).logits
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    assert len(intervene(model, PROMPT, whole).logits) == 1


def test_every_head_of_a_column_together_is_the_column() -> None:
    model = loaded("llama")
    heads = [ablate(f"1.attn.head:{head}~2") for head in range(4)]
    one, other = intervene(model, PROMPT, [heads, [ablate("1.attn~2")]], position=None).logits
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_batch_gives_each_row_what_it_gets_alone() -> None:
    model = loaded("llama")
    lists = [[one] for one, *_ in CASES.values()] + [[ablate("1.attn.head:0@5~1"), ablate("0.mlp")], []]
    together = intervene(model, PROMPT, lists, position=None).logits
    for row, group in enumerate(lists):
        alone = intervene(model, PROMPT, [group], position=None).logits[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)


def test_prompts_of_different_lengths_share_a_batch() -> None:
    model = loaded("llama")
    given = [PROMPT.tolist(), OTHER[:5].tolist()]
    lists = [[ablate("1.mlp", positions=-1)], [ablate("0.attn.head:1", positions=-1)]]
    together = intervene(model, given, lists)
    for row, ids in enumerate(given):
        alone = intervene(model, ids, [lists[row]])
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GRAPH_FAMILIES)
def test_with_everything_held_an_effect_is_the_gradient_times_the_step(name: str) -> None:
    model = loaded(name, torch.float64)
    layout, vector = model.layout, VECTOR.double()
    writer = next(w for w in layout.of(1) if w.name in ("mlp", "moe"))
    target = model.unembedding(torch.tensor([7]))[0]
    seen: dict[str, Tensor] = {}
    place = writer.write if writer.post_norm is None else writer.post_norm

    def leaf(_: Any, __: Any, output: Any) -> Any:
        seen["leaf"] = main_output(output).detach().clone().requires_grad_()
        return (seen["leaf"], *output[1:]) if isinstance(output, tuple) else seen["leaf"]

    with frozen(layout), hooked([(place, leaf), (layout.final_norm, lambda _, __, out: seen.update(final=out))]):
        layout.hf(input_ids=PROMPT[None], use_cache=False)
        (gradient,) = torch.autograd.grad((seen["final"].reshape(9, 32)[-1].to(target) @ target), seen["leaf"])
    expected = gradient.reshape(9, 32)[3] @ vector
    freeze = Freeze(attention=True, norms=True, layers=range(3))
    node = f"1.{writer.name}@3"
    steps = [[steer(node, add=vector)], [steer(node, add=-3 * vector)]]
    change = intervene(model, PROMPT, steps, freeze=freeze).change(7)[:, 0, 0].to(expected)
    torch.testing.assert_close(change, torch.stack([expected, -3 * expected]), atol=1e-6, rtol=1e-5)


def test_live_and_frozen_effects_differ() -> None:
    one = [ablate("0.mlp@3")]
    live, held = (
        intervene(loaded("llama"), PROMPT, one, freeze=freeze).change(7)
        for freeze in (Freeze(), Freeze(attention=True, norms=True, layers=range(3)))
    )
    assert abs(float(live - held)) > 1e-3


def test_a_neuron_of_a_held_layer_moves_its_layers_write() -> None:
    model = loaded("llama")
    outcome = intervene(
        model,
        PROMPT,
        [set_value("1.mlp.neuron:4@5", 2.0), ablate("0.attn")],
        freeze=Freeze(layers=[1]),
        watch=["1.mlp"],
    )
    column = model.hf.model.layers[1].mlp.down_proj.weight[:, 4]
    before = clean(model, "model.layers.1.mlp.down_proj", "in")[0, 5, 4]
    moved = outcome.watched["1.mlp"].changed[0] - outcome.watched["1.mlp"].clean[0]
    torch.testing.assert_close(moved[5], (2.0 - before) * column, atol=1e-5, rtol=1e-4)
    assert float(moved[torch.arange(9) != 5].abs().max()) == 0


@pytest.mark.parametrize("name", ["jamba", "falcon_h1", "qwen3_next", "mamba", "recurrent_gemma"])
def test_a_recurrences_write_can_be_held(name: str) -> None:
    model = loaded(name)
    writers = [w for w in model.layout.writers if w.name != "attn"]
    keys = [w.key for w in writers if w.layer > 0]
    freeze = Freeze(layers=range(model.n_layers))
    outcome = intervene(model, PROMPT, [steer("embed@2", scale=0.0)], freeze=freeze, watch=keys)
    for key in keys:
        torch.testing.assert_close(outcome.watched[key].changed, outcome.watched[key].clean)
    free = intervene(model, PROMPT, [steer("embed@2", scale=0.0)], watch=keys[-1:])
    assert float((free.watched[keys[-1]].changed - free.watched[keys[-1]].clean).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_all_experts_together_are_the_mixture(name: str) -> None:
    model = loaded(name)
    experts = [ablate(f"1.moe.expert:{e}") for e in range(4)]
    one, other = intervene(model, PROMPT, [experts, [ablate("1.moe")]], position=None).logits
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_all_neurons_of_an_expert_together_are_the_expert() -> None:
    model = loaded("mixtral")
    neurons = [ablate(f"1.moe.neuron:2/{i}") for i in range(64)]
    one, other = intervene(model, PROMPT, [neurons, [ablate("1.moe.expert:2")]], position=None).logits
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neo"])
def test_embeddings_of_tokens_and_positions_add_up_to_the_stream(name: str) -> None:
    model = loaded(name)
    watched = intervene(model, PROMPT, [], watch=["embed", "pos_embed", "0.resid_pre"]).watched
    together = watched["embed"].clean + watched["pos_embed"].clean
    torch.testing.assert_close(together, watched["0.resid_pre"].clean)


def test_a_change_is_read_in_logits_differences_directions_and_metrics() -> None:
    import whence

    model = loaded("gemma2")  # capped logits
    outcome = intervene(model, PROMPT, [ablate("1.mlp")])
    raw = torch.atanh(torch.stack([outcome.logits, outcome.clean_logits]) / 3.0) * 3.0
    moved = (raw[0] - raw[1])[0, 0]
    torch.testing.assert_close(outcome.change([5, 9])[0, 0], moved[[5, 9]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        outcome.change(whence.logit_difference(5, 9))[0, 0, 0], moved[5] - moved[9], atol=1e-4, rtol=1e-4
    )
    direction = model.unembedding(torch.tensor([5]))[0] - model.unembedding(torch.tensor([9]))[0]
    custom = whence.CustomTarget("5 - 9", 1.0, direction)
    torch.testing.assert_close(outcome.change(custom)[0, 0, 0], moved[5] - moved[9], atol=1e-4, rtol=1e-4)
    p = torch.stack([outcome.logits, outcome.clean_logits]).softmax(-1)[..., 5]
    torch.testing.assert_close(outcome.change(whence.probability(5))[0, 0, 0], (p[0] - p[1])[0, 0])
    top = int(outcome.clean_logits.argmax())
    torch.testing.assert_close(outcome.change(), outcome.change(top))
    with pytest.raises(TypeError, match="watch="):
        outcome.change(whence.activation("1.mlp.neuron:3.up"))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "layer": (lambda: ablate("7.mlp"), "layers 0 to 2"),
    "head": (lambda: ablate("1.attn.head:9"), "heads 0 to 3"),
    "neuron": (lambda: ablate("1.mlp.neuron:64"), "units 0 to 63"),
    "writer": (lambda: ablate("1.ssm"), "it holds attn, mlp"),
    "expert": (lambda: ablate("1.moe.expert:0"), "it holds attn, mlp"),
    "position": (lambda: ablate("1.mlp@9"), "which has 9 tokens"),
    "negative position": (lambda: ablate("1.mlp", positions=-10), "which has 9 tokens"),
    "source": (lambda: ablate("1.attn.head:0@3~9"), "which has 9 tokens"),
    "feature": (lambda: ablate("1.mlp.feature:0"), "pass it as dictionary="),
    "constant": (lambda: ablate("output.bias"), "not something that can be changed"),
    "end": (lambda: ablate("1.attn.head:0.q"), "name the unit itself"),
    "no positions": (lambda: ablate("pos_embed@1"), "no learned position"),
    "width": (lambda: set_value("1.mlp", torch.zeros(5)), "vectors of width 32"),
    "vector for a number": (lambda: set_value("1.mlp.neuron:2", torch.zeros(5)), "its values are numbers"),
    "short source": (lambda: patch("1.mlp", OTHER[:4]), "has 4 tokens"),
    "two sources": (lambda: patch("1.mlp", prompts()), "one source prompt"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_said_in_a_sentence(case: str) -> None:
    make, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        intervene(loaded("llama"), PROMPT, [make()])


def test_attention_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be read"):
        intervene(loaded("bloom"), PROMPT, [ablate("1.attn.head:0@3~1")])
    with pytest.raises(UnsupportedModelError, match="cannot be read"):
        intervene(loaded("bloom"), PROMPT, [ablate("1.mlp")], freeze=Freeze(attention=True))


def test_a_parallel_block_has_no_middle() -> None:
    with pytest.raises(UnsupportedModelError, match="read in parallel"):
        intervene(loaded("gptj"), PROMPT, [ablate("1.resid_mid")])


def test_lists_and_prompts_must_match() -> None:
    with pytest.raises(ValueError, match="3 lists of interventions for 2 prompts"):
        intervene(loaded("llama"), prompts(), [[], [], []])
    with pytest.raises(TypeError, match="make them with"):
        intervene(loaded("llama"), PROMPT, ["1.mlp"])
    with pytest.raises(ValueError, match="names a position"):
        intervene(loaded("llama"), PROMPT, [], watch=["1.mlp@3"])


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_hooks_come_off_after_an_error(name: str) -> None:
    hf = fresh(name)
    model = Model(hf)
    before, kernel = model.logits(PROMPT), hf.config._attn_implementation
    freeze = Freeze(attention=True, norms=True, layers=range(3))
    with pytest.raises(ValueError, match="width"):
        intervene(model, PROMPT, [ablate("1.attn.head:0~1"), set_value("2.mlp", torch.zeros(5))], freeze=freeze)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())
    assert not any("_attn" in vars(module) for module in hf.modules())
    assert hf.config._attn_implementation == kernel
    assert torch.equal(model.logits(PROMPT), before)


@pytest.mark.parametrize("key", ["1.moe.neuron:2/3", "1.moe.expert:2", "1.attn.head:1~3", "1.attn~3"])
def test_what_is_computed_anew_is_set_once_however_often_it_is_named(key: str) -> None:
    model = loaded("mixtral")
    lists = [[set_value(key, 3.0)], [set_value(key, 3.0), set_value(key, 3.0)], [ablate(key), steer(key, add=3.0)]]
    once, twice, added = intervene(model, PROMPT, lists).logits
    torch.testing.assert_close(twice, once, atol=0, rtol=0)
    torch.testing.assert_close(added, once, atol=0, rtol=0)


def test_an_embedding_named_after_another_token_is_refused() -> None:
    model, token = loaded("llama"), int(PROMPT[4])
    same = [[ablate(f"embed:{token}@4")], [ablate("embed@4")], [ablate(f"embed:{token}", positions=[-5])]]
    first, second, third = intervene(model, PROMPT, same).logits
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    with pytest.raises(ValueError, match=f"token at position 4 is {token}, not {token + 1}; name 'embed:{token}@4'"):
        intervene(model, PROMPT, [ablate(f"embed:{token + 1}@4")])


@pytest.mark.parametrize("layers", [[77], [0, -1], range(4)])
def test_layers_that_do_not_exist_cannot_be_frozen(layers: Any) -> None:
    with pytest.raises(ValueError, match=r"the model has layers 0 to 2"):
        intervene(loaded("llama"), PROMPT, [ablate("1.mlp")], freeze=Freeze(layers=layers))


def test_an_outcome_says_of_logits_that_are_no_numbers_what_they_are() -> None:
    outcome = intervene(loaded("llama"), PROMPT, [ablate("1.mlp")])
    broken = replace(outcome, logits=torch.full_like(outcome.logits, torch.nan))
    assert repr(broken).endswith("largest change nan)")
