import pytest
import torch

from whence.components.head_reads import HeadReads


@pytest.mark.parametrize("key", ["1.attn.head:0", "1.attn.head:0.qk", "1.attn.head:0.q@3", "1.mlp.neuron:0.gate"])
def test_keys_that_are_no_input_of_a_head_are_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=f"HeadReads: {key} is no input of a head; name its end"):
        HeadReads({key: torch.ones(2)})


def test_what_a_result_records_of_covectors() -> None:
    reads = HeadReads({"1.attn.head:0.k": torch.tensor([1.0, 0.5])})
    assert reads.describe() == {"kind": "head_reads", "covectors": {"1.attn.head:0.k": [1.0, 0.5]}}
