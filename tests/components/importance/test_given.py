import pytest
import torch

from whence.components.importance.given import Given, Ones

INPUTS = {"0.attn.q": torch.zeros(2, 3, 8), "embed.matrix": torch.zeros(2, 3, dtype=torch.long)}


def test_given_importances_are_taken_by_row_of_the_data():
    every = torch.rand(10, 4, 5, generator=torch.Generator().manual_seed(0))
    found = Given({"0.attn.q": every})(INPUTS, torch.tensor([7, 2]))["0.attn.q"]
    assert torch.equal(found, torch.stack([every[7, :3], every[2, :3]]))


def test_a_row_beyond_what_is_given_is_refused():
    given = Given({"0.attn.q": torch.rand(2, 3, 5)})
    with pytest.raises(ValueError, match=r"given for 0\.attn\.q are for 2 rows of data, and row 6 is asked for"):
        given(INPUTS, torch.tensor([0, 6]))


def test_ones_are_everywhere():
    found = Ones({"0.attn.q": 5, "embed.matrix": 4})(INPUTS, torch.tensor([0, 1]))
    assert torch.equal(found["0.attn.q"], torch.ones(2, 3, 5))
    assert torch.equal(found["embed.matrix"], torch.ones(2, 3, 4))


def test_both_can_be_moved():
    given = Given({"0.attn.q": torch.rand(2, 3, 5)})
    assert torch.equal(given.to("cpu").tensors["0.attn.q"], given.tensors["0.attn.q"])
    assert Ones({"0.attn.q": 5}).to("cpu").counts == {"0.attn.q": 5}
