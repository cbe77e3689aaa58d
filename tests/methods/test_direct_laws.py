"""Laws of the ledger: padding, order and company of prompts do not matter; targets add; files give back the same."""

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import families
import whence

PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]
QUICK = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TOKENS = st.integers(0, 63)


@cache
def model(name: str, dtype: torch.dtype = torch.float64) -> whence.Model:
    return whence.Model(families.tiny(name, dtype))


@pytest.mark.parametrize(
    "name", ["gpt2", "gptj", "gemma2 window", "mixtral", "jamba", "falcon_h1", "bloom", "qwen3_next"]
)
@pytest.mark.parametrize("by", ["component", "head", "neuron"])
def test_a_ragged_batch_scores_each_prompt_as_alone(name: str, by: str) -> None:
    # Windows in float32: where a window holds padding alone, transformers' own eager attention is NaN in float64.
    subject = model(name, torch.float32 if "window" in name else torch.float64)
    together, everywhere = (whence.dla(subject, PROMPTS, 20, by=by, position=where) for where in (-1, None))
    for i, prompt in enumerate(PROMPTS):
        alone = whence.dla(subject, [prompt], 20, by=by, position=None)
        assert torch.allclose(together.values[:, i], alone.values[:, 0, -1], atol=1e-5)
        assert torch.allclose(everywhere.values[:, i, : len(prompt)], alone.values[:, 0], atol=1e-5)
        assert bool((everywhere.values[:, i, len(prompt) :] == 0).all())
        assert bool((everywhere.target[i, len(prompt) :] == 0).all())
        assert together.positions[i] == (len(prompt) - 1,)
        assert len(together.tokens[i]) == len(prompt)


def test_source_tokens_of_padding_score_nothing() -> None:
    scores = whence.dla(model("llama"), PROMPTS, 20, by="source_token")
    heads = [(i, key.source) for i, key in enumerate(scores.keys) if key.source is not None]
    assert {source for _, source in heads} == set(range(6))
    assert bool((scores.values[[i for i, source in heads if source >= 2], 1] == 0).all())


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "jamba"])
@QUICK
@given(order=st.permutations(range(3)), tokens=st.lists(TOKENS, min_size=3, max_size=3))
def test_the_order_of_prompts_does_not_matter(name: str, order: list[int], tokens: list[int]) -> None:
    one = whence.dla(model(name), PROMPTS, torch.tensor(tokens), by="head")
    other = whence.dla(model(name), [PROMPTS[i] for i in order], torch.tensor([tokens[i] for i in order]), by="head")
    assert torch.allclose(one.values[:, order], other.values, atol=1e-7)
    assert [one.target_labels[i] for i in order] == list(other.target_labels)


@pytest.mark.parametrize("name", ["gpt2", "jamba"])
@QUICK
@given(a=TOKENS, b=TOKENS, position=st.integers(-2, 1), by=st.sampled_from(["component", "head", "neuron"]))
def test_scores_of_a_difference_are_the_difference_of_scores(name: str, a: int, b: int, position: int, by: str) -> None:
    one, other, both = (
        whence.dla(model(name), PROMPTS, target, foil, by=by, position=position)
        for target, foil in ((a, None), (b, None), (a, b))
    )
    assert torch.allclose(one.values - other.values, both.values, atol=1e-9)
    assert torch.allclose(one.target - other.target, both.target, atol=1e-9)


@QUICK
@given(a=TOKENS, b=TOKENS)
def test_capped_differences_add_too(a: int, b: int) -> None:
    one, other, both = (whence.dla(model("gemma2"), PROMPTS, *pair) for pair in ((a,), (b,), (a, b)))
    assert torch.allclose(one.values - other.values, both.values, atol=1e-9)


@QUICK
@given(tokens=st.lists(TOKENS, min_size=1, max_size=3), by=st.sampled_from(["component", "head", "neuron", "layer"]))
def test_several_targets_are_each_as_alone(tokens: list[int], by: str) -> None:
    several = whence.dla(model("gpt2"), PROMPTS, tokens, by=by)
    values = several.values if len(tokens) > 1 else several.values[..., None]
    for i, token in enumerate(tokens):
        assert torch.allclose(values[..., i], whence.dla(model("gpt2"), PROMPTS, token, by=by).values, atol=1e-9)


def test_several_positions_are_each_as_alone() -> None:
    several = whence.dla(model("gpt2"), PROMPTS, 20, by="neuron", position=[0, -1, 1])
    for i, position in enumerate([0, -1, 1]):
        alone = whence.dla(model("gpt2"), PROMPTS, 20, by="neuron", position=position)
        assert torch.allclose(several.values[:, :, i], alone.values, atol=1e-9)
    assert several.positions == ((0, 5, 1), (0, 1, 1), (0, 3, 1))


def test_a_token_known_before_the_pass_scores_as_one_known_after_it() -> None:
    """The most likely token is found in the pass, a given one is scored while it goes: two ways through, one result."""
    after = whence.dla(model("gpt2"), PROMPTS, by="neuron")
    best = model("gpt2").logits(PROMPTS).argmax(-1)[:, 0]
    before = whence.dla(model("gpt2"), PROMPTS, best, by="neuron")
    assert torch.allclose(after.values, before.values, atol=1e-9)
    assert after.target_labels == before.target_labels


@pytest.mark.parametrize(
    "options",
    [
        {"by": "neuron", "position": None},
        {"targets": [5, 6], "by": "source_token"},
        {"targets": whence.probability(5), "position": [0, 1]},
        {"accumulated": True},
        {"by": ("head", "neuron"), "top": 4},
        {"targets": whence.activation("1.mlp.neuron:3"), "by": "layer"},
    ],
)
def test_a_saved_result_loads_as_the_same(options: dict[str, object], tmp_path: object) -> None:
    scores = whence.dla(model("gpt2"), PROMPTS, options.pop("targets", None), **options)
    loaded = whence.Scores.load(scores.save(tmp_path / "scores"))
    assert torch.equal(loaded.values, scores.values)
    assert torch.equal(loaded.target, scores.target)
    assert torch.allclose(loaded.remainder, scores.remainder, atol=1e-12)  # summed in another order of memory
    for name in ("keys", "axes", "target_labels", "tokens", "positions", "provenance", "running"):
        assert getattr(loaded, name) == getattr(scores, name), name


def test_the_same_call_twice_gives_the_same_bits() -> None:
    for by in ("head", "neuron"):
        one, other = (whence.dla(model("jamba"), PROMPTS, by=by, position=None) for _ in range(2))
        assert torch.equal(one.values, other.values)


def test_provenance_says_what_was_asked_and_held() -> None:
    made = whence.dla(model("gpt2"), PROMPTS, 5, by="head", position=[0, -1]).provenance
    wanted = {"method": "direct_logit_attribution", "dtype": "float64", "by": "head", "position": [0, -1]}
    assert wanted.items() <= made.items()
    assert made["frozen"] == {"norms": "final", "attention": "as recorded"}
    assert made["tolerance"] > 0
    assert set(made["versions"]) == {"whence", "torch", "transformers"}
    neuron = whence.dla(model("gpt2"), PROMPTS, whence.activation("1.mlp.neuron:3")).provenance
    assert neuron["frozen"]["norms"] == "the reader's"
