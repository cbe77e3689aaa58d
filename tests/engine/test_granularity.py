import pytest
import torch

from families import loaded, prompts
from whence.engine.granularity import granularities
from whence.methods.direct import direct_logit_attribution

COMBINED = [
    ("gpt2", ("head", "neuron")),
    ("gemma2", ("source_token", "neuron")),
    ("mixtral", ("head", "expert")),
    ("jamba", ("head", "neuron", "channel")),
]


@pytest.mark.parametrize(("family", "by"), COMBINED)
def test_granularities_combined_give_each_its_own_rows_and_still_add_up(family: str, by: tuple[str, ...]) -> None:
    model, ids = loaded(family), prompts()
    both = direct_logit_attribution(model, ids, 10, 20, by=by, position=None)
    assert float((both.remainder.abs() / both.magnitude).max()) < 1e-6
    assert both.provenance["by"] == list(by)
    units = 0
    for one in by:
        alone = direct_logit_attribution(model, ids, 10, 20, by=one, position=None)
        rows = [row for row, key in enumerate(alone.keys) if key.index is not None]
        same = [both.keys.index(alone.keys[row]) for row in rows]
        torch.testing.assert_close(both.values[same], alone.values[rows], rtol=1e-5, atol=1e-7)
        units += len(rows)
    assert units == sum(key.index is not None for key in both.keys)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (("head", "source_token"), "'head' and 'source_token' both split attn"),
        (("neuron", "expert"), "'neuron' and 'expert' both split moe"),
        (("component", "head"), "'component' stands alone"),
        (("feature", "head"), "'feature' stands alone"),
        (("head", "neurn"), "did you mean 'neuron'"),
        ((), "names no granularity"),
    ],
)
def test_granularities_that_do_not_go_together_are_refused_by_name(by: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        granularities(by)


def test_one_name_and_a_list_of_one_are_the_same() -> None:
    assert granularities("head") == granularities(["head"]) == {"head"}


def test_each_of_several_granularities_must_mean_something_for_the_model() -> None:
    with pytest.raises(NotImplementedError, match="by='expert' has no meaning for GPT2LMHeadModel"):
        direct_logit_attribution(loaded("gpt2"), prompts(), 10, by=("head", "expert"))
