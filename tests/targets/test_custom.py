import math
import re

import numpy as np
import pytest
import torch

from targets.tiny import TinyReadout
from whence.targets.custom import CustomTarget, check_custom

MODEL = TinyReadout()


def check(*target):
    return check_custom(target, MODEL, "attribution_targets[2]")


def test_a_target_is_a_triple_with_names():
    target = CustomTarget("x", 0.5, torch.ones(4))
    assert target == ("x", 0.5, target.vec)


@pytest.mark.parametrize("prob", [1, 1.0, np.float32(1), torch.tensor(1.0), np.array(1)])
def test_a_weight_may_be_any_one_number(prob):
    weight = check("x", prob, torch.ones(4)).prob
    assert (weight, type(weight)) == (1.0, float)


@pytest.mark.parametrize("target", [("x", 1.0), ("x", 1.0, torch.ones(4), "more"), ()])
def test_a_tuple_of_another_length_is_refused(target):
    with pytest.raises(
        ValueError, match=re.escape(f"attribution_targets[2] has length {len(target)}: a custom target is")
    ):
        check(*target)


def test_a_name_that_is_not_text_is_refused():
    with pytest.raises(TypeError, match=re.escape("attribution_targets[2]: token_str must be a str, not int (5)")):
        check(5, 1.0, torch.ones(4))


@pytest.mark.parametrize("prob", ["0.5", True, None, 1j, torch.ones(2), np.ones(2)])
def test_a_weight_that_is_not_one_number_is_refused(prob):
    with pytest.raises(
        TypeError, match=re.escape(f"attribution_targets[2]: prob must be one number, not {type(prob).__name__}")
    ):
        check("x", prob, torch.ones(4))


@pytest.mark.parametrize("prob", [math.nan, math.inf, -math.inf, -0.5])
def test_a_weight_must_be_finite_and_not_negative(prob):
    with pytest.raises(ValueError, match=re.escape(f"attribution_targets[2]: prob is {prob}; give a finite weight")):
        check("x", prob, torch.ones(4))


@pytest.mark.parametrize("vec", [[1.0] * 4, np.ones(4), None])
def test_a_vector_that_is_not_a_tensor_is_refused(vec):
    with pytest.raises(TypeError, match=re.escape(f"vec must be a torch.Tensor, not {type(vec).__name__}")):
        check("x", 1.0, vec)


def test_a_vector_of_integers_is_refused():
    with pytest.raises(TypeError, match=r"vec must hold floating-point numbers, not torch.int64: use vec.float\(\)"):
        check("x", 1.0, torch.tensor([1, 2, 3, 4]))


@pytest.mark.parametrize("shape", [(5,), (1, 4), (4, 1), ()])
def test_a_vector_of_another_shape_is_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"vec must have shape (4,), the model's d_model; got {shape}")):
        check("x", 1.0, torch.ones(shape))


def test_a_vector_on_another_device_is_refused():
    with pytest.raises(ValueError, match=r"vec is on meta and the model on cpu: use vec.to\(model.device\)"):
        check("x", 1.0, torch.ones(4, device="meta"))


def test_a_device_without_a_number_agrees_with_any_number():
    model = TinyReadout()
    model.device = torch.device("cpu:0")
    assert check_custom(("x", 1.0, torch.ones(4)), model, "it").token_str == "x"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_is_refused_naming_the_first_place(value):
    vec = torch.tensor([0.0, value, 1.0, value])
    with pytest.raises(
        ValueError, match=re.escape(f"attribution_targets[2]: vec[1] is {value}; 2 of its values are not finite")
    ):
        check("x", 1.0, vec)
