import pytest
import torch

from whence.engine.functional import dot


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("asked", [1, 3])
def test_a_covector_shared_along_an_axis_is_as_one_repeated(examples: int, asked: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    covector = torch.randn(examples, asked, 4, 5, generator=generator, dtype=torch.float64)
    expected = torch.einsum("eax,eatx->eat", x, covector.expand(2, 3, 4, 5))
    assert torch.allclose(dot(x, covector), expected)
