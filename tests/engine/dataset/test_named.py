import pytest
import torch

from circuit_cases import random_saes
from dataset_parts import random_parts, small
from whence.components.head_reads import HeadReads
from whence.components.sets import as_dictionary_set
from whence.engine.dataset.named import sorted_out


def test_everything_that_can_be_named_is_sorted_by_what_it_is() -> None:
    parts, (sae,) = random_parts(small("gpt2"), only=("mlp.up",)), random_saes([1], {"attn_out": 16})
    reads = [HeadReads({f"1.attn.head:{head}.q": torch.ones(8)}) for head in (0, 1)]
    given = sorted_out([parts, sae, "attn.head", *reads])
    assert given.parameters is parts
    assert [len(one) for one in given.sets] == [1]
    assert given.names == ("attn.head",)
    assert given.heads.keys == ("1.attn.head:0.q", "1.attn.head:1.q")
    kinds = [one if isinstance(one, str) else one["kind"] for one in given.describe()]
    assert kinds == ["parameter_components", "sae", "attn.head", "head_reads"]


def test_one_thing_alone_is_a_list_of_one() -> None:
    (sae,) = random_saes([1], {"attn_out": 16})
    assert sorted_out("mlp").names == ("mlp",)
    assert len(sorted_out(sae).sets) == len(sorted_out(as_dictionary_set(sae)).sets) == 1


def test_what_cannot_be_named_is_refused() -> None:
    parts = random_parts(small("gpt2"), only=("mlp.up",))
    with pytest.raises(ValueError, match=r"names 'heads'; units of the model's own are attn\.head"):
        sorted_out("heads")
    with pytest.raises(ValueError, match="two sets of parameter components"):
        sorted_out([parts, parts])
    with pytest.raises(ValueError, match=r"HeadReads without 'attn\.head'"):
        sorted_out(HeadReads({"1.attn.head:0.q": torch.ones(8)}))
    with pytest.raises(TypeError, match=r"holds a Tensor; it takes parameter components"):
        sorted_out([torch.ones(2)])
