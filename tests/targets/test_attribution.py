import dataclasses
import logging
import math
import re

import pytest
import torch

from targets.tiny import AUSTIN, BOSTON, JOHN, MARY, TEXAS, TinyReadout, byte_level, metaspace
from whence.results.keys import LogitTarget
from whence.targets import AttributionTargets, CustomTarget


@pytest.fixture(scope="module")
def model():
    return TinyReadout(metaspace())


@pytest.fixture(scope="module")
def logits(model):
    return 3 * torch.randn(model.vocab_size, generator=torch.Generator().manual_seed(1))


def vector(*values):
    return torch.tensor(values, dtype=torch.float32)


@pytest.fixture
def custom(model, logits):
    given = [CustomTarget("first", 0.25, vector(1, 2, 3, 4)), ("second", 2, vector(0, 0, 0, 1))]
    return AttributionTargets(given, model=model, logits=logits)


def test_strings_become_their_tokens_rows_and_probabilities(model, logits):
    targets = AttributionTargets([" Austin", " Texas"], model=model, logits=logits)
    assert targets.logit_targets == [LogitTarget(" Austin", AUSTIN), LogitTarget(" Texas", TEXAS)]
    assert targets.tokens == [" Austin", " Texas"]
    assert targets.token_ids == targets.vocab_indices.tolist() == targets.logit_token_ids.tolist() == [AUSTIN, TEXAS]
    assert torch.equal(targets.logit_vectors, model.rows[[AUSTIN, TEXAS]])
    assert torch.equal(targets.logit_probabilities, logits.softmax(0)[[AUSTIN, TEXAS]])
    assert (len(targets), targets.vocab_size, targets.has_virtual_indices) == (2, 16, False)


def test_a_bare_string_is_one_token(model, logits):
    assert AttributionTargets(" Mary", model=model, logits=logits).token_ids == [MARY]


@pytest.mark.parametrize("ids", [torch.tensor([JOHN, MARY]), torch.tensor([JOHN, MARY], dtype=torch.uint8)])
def test_ids_keep_their_order(model, logits, ids):
    targets = AttributionTargets(ids, model=model, logits=logits)
    assert targets.token_ids == [JOHN, MARY]
    assert targets.tokens == [" John", " Mary"]


def test_a_tensor_of_no_dimension_is_one_id(model, logits):
    assert AttributionTargets(torch.tensor(JOHN), model=model, logits=logits).token_ids == [JOHN]


def test_an_id_past_the_tokenizer_but_within_the_logits_is_a_target(model, logits):
    targets = AttributionTargets(torch.tensor([15]), model=model, logits=logits)
    assert targets.logit_targets == [LogitTarget("<id 15>", 15)]
    assert not targets.has_virtual_indices


def test_ids_and_likely_tokens_need_no_tokenizer(logits):
    bare = TinyReadout()
    assert AttributionTargets(torch.tensor([JOHN]), model=bare, logits=logits).tokens == [str(JOHN)]
    assert AttributionTargets(None, model=bare, logits=logits, max_n_logits=1).token_ids == [int(logits.argmax())]
    with pytest.raises(ValueError, match="there is no tokenizer to look up ' Mary' with"):
        AttributionTargets([" Mary"], model=bare, logits=logits)


def test_byte_level_tokens_are_targets():
    model = TinyReadout(byte_level())
    model.vocab_size, model.rows = 264, torch.eye(264)[:, :4]
    targets = AttributionTargets([" Mary", "<|end|>"], model=model, logits=torch.zeros(264))
    assert targets.tokens == [" Mary", "<|end|>"]
    assert targets.token_ids[1] == 0


def test_custom_directions_are_kept_raw_under_virtual_indices(custom):
    assert custom.logit_targets == [LogitTarget("first", 16), LogitTarget("second", 17)]
    assert torch.equal(custom.logit_vectors, torch.stack([vector(1, 2, 3, 4), vector(0, 0, 0, 1)]))
    assert custom.logit_probabilities.tolist() == [0.25, 2.0]
    assert custom.vocab_indices.tolist() == custom.token_ids == [16, 17]
    assert custom.has_virtual_indices


def test_a_bare_custom_target_is_one_target(model, logits):
    assert AttributionTargets(CustomTarget("x", 1.0, vector(1, 0, 0, 0)), model=model, logits=logits).tokens == ["x"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_everything_is_held_in_fp32_without_a_graph(model, logits, dtype):
    vec = torch.ones(4, dtype=dtype, requires_grad=True)
    directions = AttributionTargets([("x", 1.0, vec)], model=model, logits=logits.to(dtype))
    tokens = AttributionTargets([" Mary"], model=model, logits=logits.to(dtype).requires_grad_())
    for targets in (directions, tokens):
        for tensor in (targets.logit_vectors, targets.logit_probabilities):
            assert (tensor.dtype, tensor.requires_grad) == (torch.float32, False)


def test_a_later_change_to_the_users_vector_changes_nothing(model, logits):
    vec = torch.ones(4)
    targets = AttributionTargets([("x", 1.0, vec)], model=model, logits=logits)
    vec.zero_()
    assert targets.logit_vectors.tolist() == [[1, 1, 1, 1]]


def test_asking_custom_directions_for_token_ids_names_them(custom):
    message = "these targets are directions, not tokens: 'first' (16), 'second' (17). Use vocab_indices."
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = custom.logit_token_ids


def test_the_old_name_of_token_ids_warns(model, logits):
    targets = AttributionTargets([" Mary"], model=model, logits=logits)
    with pytest.warns(DeprecationWarning, match="use logit_token_ids"):
        assert targets.logit_tokens.tolist() == [MARY]


def test_targets_cannot_be_changed(custom):
    for name in ("vocab_size", "logit_vectors", "tokens", "another"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(custom, name, 0)
    custom.logit_targets.clear()
    custom.tokens.clear()
    assert len(custom) == len(custom.logit_targets) == 2


def test_moving_gives_new_targets_and_leaves_the_old_ones(custom):
    moved = custom.to("meta")
    tensors = (moved.logit_vectors, moved.logit_probabilities, moved.vocab_indices)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.logit_targets, moved.vocab_size) == (custom.logit_targets, 16)
    assert custom.logit_vectors.device.type == "cpu"


def test_moving_to_where_they_are_keeps_the_values(custom):
    same = custom.to(torch.device("cpu"))
    assert same is not custom
    assert torch.equal(same.logit_vectors, custom.logit_vectors)
    assert torch.equal(same.logit_probabilities, custom.logit_probabilities)


def test_repr_shows_three_targets_and_that_there_are_more(model, custom):
    assert repr(custom) == "AttributionTargets(2: 'first' 0.250, 'second' 2.000)"
    four = AttributionTargets(torch.tensor([2, 3, 4, 5]), model=model, logits=torch.zeros(16))
    assert repr(four) == "AttributionTargets(4: ' Mary' 0.062, ' John' 0.062, ' Miss' 0.062, …)"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (None, "Attribution targets (salient logits): 2, cumulative probability 0.7500"),
        (torch.tensor([MARY]), "Attribution targets (token ids): 1, cumulative probability 0.5000"),
        ([" Mary", " John"], "Attribution targets (tokens): 2, cumulative probability 0.7500"),
        (
            [("x", 3.0, torch.ones(4)), ("y", 1.5, torch.ones(4))],
            "Attribution targets (custom directions): 2, total weight 4.5000",
        ),
    ],
)
def test_each_mode_logs_one_line(model, caplog, given, line):
    logits = torch.full((16,), -math.inf)
    logits[[MARY, JOHN, AUSTIN]] = torch.tensor([0.5, 0.25, 0.25]).log()
    with caplog.at_level(logging.INFO, logger="whence"):
        AttributionTargets(given, model=model, logits=logits, desired_logit_prob=0.7)
    assert [record.getMessage() for record in caplog.records] == [line]


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (torch.tensor([JOHN, MARY, JOHN]), "[0] and [2] are the same token, ' John' (id 3)"),
        ([" Austin", " Boston", " Boston"], "[1] and [2] are the same token, ' Boston' (id 11)"),
    ],
)
def test_a_token_named_twice_is_refused(model, logits, given, where):
    with pytest.raises(ValueError, match=re.escape(f"attribution_targets{where}: it would count twice")):
        AttributionTargets(given, model=model, logits=logits)


def test_two_spellings_of_one_token_are_the_same_token(logits):
    with pytest.raises(ValueError, match=re.escape("are the same token, ' Mary' (id 2)")):
        AttributionTargets(["Mary", " Mary"], model=TinyReadout(metaspace("first")), logits=logits)


def test_two_custom_directions_may_share_a_name(model, logits):
    twice = AttributionTargets([("x", 1.0, torch.ones(4))] * 2, model=model, logits=logits)
    assert twice.token_ids == [16, 17]


@pytest.mark.parametrize("id", [-1, 16])
def test_an_id_outside_the_logits_is_refused(model, logits, id):
    with pytest.raises(ValueError, match=f"token id {id} is outside 0 to 15: the model has 16 logits"):
        AttributionTargets(torch.tensor([BOSTON, id]), model=model, logits=logits)


def test_text_that_is_not_one_known_token_is_refused(model, logits):
    with pytest.raises(ValueError, match=re.escape("' Miss' | 'iss' | 'ippi'")):
        AttributionTargets([" Mary", " Mississippi"], model=model, logits=logits)
    with pytest.raises(ValueError, match="'zebra' is not in the vocabulary"):
        AttributionTargets("zebra", model=model, logits=logits)
    with pytest.raises(ValueError, match="'' is an empty string"):
        AttributionTargets("", model=model, logits=logits)


def test_limits_that_no_number_of_logits_meets_are_refused_in_every_mode(model, logits):
    with pytest.raises(ValueError, match="max_n_logits is 0"):
        AttributionTargets(None, model=model, logits=logits, max_n_logits=0)
    with pytest.raises(ValueError, match=r"desired_logit_prob is 1\.5"):
        AttributionTargets(" Mary", model=model, logits=logits, desired_logit_prob=1.5)


def test_logits_of_another_model_are_refused(model):
    with pytest.raises(
        ValueError, match=re.escape("logits must have shape (16,), one position of one prompt; got (15,)")
    ):
        AttributionTargets(None, model=model, logits=torch.zeros(15))
