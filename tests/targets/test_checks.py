import math
import re

import numpy as np
import pytest
import torch

from whence.targets.checks import check_limits, check_logits, read_targets
from whence.targets.custom import CustomTarget

TRIPLE = ("x", 1.0, torch.ones(4))


@pytest.mark.parametrize(
    ("given", "kind", "elements"),
    [
        (torch.tensor(3), "ids", [3]),
        (torch.tensor([3, 4], dtype=torch.int32), "ids", [3, 4]),
        ("Austin", "strings", ["Austin"]),
        ((" a", " b"), "strings", [" a", " b"]),
        ([TRIPLE], "directions", [TRIPLE]),
        (CustomTarget(*TRIPLE), "directions", [TRIPLE]),
        ([TRIPLE, CustomTarget(*TRIPLE)], "directions", [TRIPLE, TRIPLE]),
    ],
)
def test_each_form_is_recognised(given, kind, elements):
    assert read_targets(given) == (kind, elements)


@pytest.mark.parametrize("given", [{" a"}, {" a": 1}, b"ab", bytearray(b"ab"), 3, (s for s in " a"), np.array([1, 2])])
def test_another_container_is_refused_by_name(given):
    with pytest.raises(TypeError, match=f"attribution_targets is a {type(given).__name__}; give None, a tensor"):
        read_targets(given)


@pytest.mark.parametrize("given", [[], (), torch.tensor([], dtype=torch.int64)])
def test_no_targets_are_refused(given):
    with pytest.raises(ValueError, match=r"attribution_targets is (an )?empty"):
        read_targets(given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_a_tensor_of_other_than_integers_is_refused(dtype):
    with pytest.raises(TypeError, match=f"attribution_targets is a tensor of {dtype}; token ids are integers"):
        read_targets(torch.zeros(2, dtype=dtype))


def test_a_table_of_ids_is_refused():
    with pytest.raises(ValueError, match=re.escape("attribution_targets has shape (1, 2); token ids are one row")):
        read_targets(torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("given", "index", "odd", "first"),
    [
        ([" a", TRIPLE], 1, "tuple", "str"),
        ([TRIPLE, TRIPLE, " a"], 2, "str", "tuple"),
        ([CustomTarget(*TRIPLE), " a"], 1, "str", "CustomTarget"),
        ([" a"] * 9 + [7], 9, "int", "str"),
        (TRIPLE, 1, "float", "str"),
        ([TRIPLE, ["x", 1.0, torch.ones(4)]], 1, "list", "tuple"),
    ],
)
def test_a_mixture_is_refused_naming_the_odd_element_wherever_it_is(given, index, odd, first):
    message = f"attribution_targets[{index}] is a {odd} but attribution_targets[0] is a {first}: all must be strings"
    with pytest.raises(TypeError, match=re.escape(message)):
        read_targets(given)


@pytest.mark.parametrize(
    ("element", "name"), [(1.5, "float"), (None, "NoneType"), (["x", 1.0], "list"), (b"a", "bytes")]
)
def test_elements_that_are_no_targets_are_refused(element, name):
    with pytest.raises(TypeError, match=re.escape(f"attribution_targets[0] is a {name}; give None, a tensor")):
        read_targets([element, element])


def test_a_list_of_ids_is_pointed_to_a_tensor():
    with pytest.raises(TypeError, match=re.escape("is a int; give") + ".*" + re.escape("torch.tensor([...])")):
        read_targets([1, 2])


@pytest.mark.parametrize("n", [0, -3])
def test_at_least_one_logit_is_needed(n):
    with pytest.raises(ValueError, match=f"max_n_logits is {n}; at least 1"):
        check_limits(n, 0.5)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.0001, math.nan])
def test_a_probability_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match=f"desired_logit_prob is {p}"):
        check_limits(1, p)


def test_the_limits_may_be_met_exactly():
    check_limits(1, 1.0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (4,), ()])
def test_logits_must_be_one_number_a_token(shape):
    with pytest.raises(
        ValueError, match=re.escape(f"logits must have shape (5,), one position of one prompt; got {shape}")
    ):
        check_logits(torch.zeros(shape), 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_refused(value):
    with pytest.raises(ValueError, match=f"logits have {value} as their largest value"):
        check_logits(torch.tensor([0.0, value, -math.inf]), 3)


def test_logits_may_rule_tokens_out_but_not_all_of_them():
    assert check_logits(torch.tensor([0.0, -math.inf]), 2).softmax(0).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="logits have -inf as their largest value"):
        check_logits(torch.full((2,), -math.inf), 2)
