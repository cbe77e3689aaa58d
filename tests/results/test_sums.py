import pytest
import torch

from whence.results.sums import AT_ONCE, sum_and_magnitude


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_in_pieces_are_the_sums_in_float64(dim: int, dtype: torch.dtype) -> None:
    values = torch.randn(3, 2 * AT_ONCE // 3 + 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    values = values.movedim(1, dim)
    before = values.clone()
    total, magnitude = sum_and_magnitude(values, dim)
    torch.testing.assert_close(total, values.double().sum(dim), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(magnitude, values.double().abs().sum(dim), rtol=1e-12, atol=1e-9)
    assert torch.equal(values, before)


def test_no_rows_sum_to_zero() -> None:
    total, magnitude = sum_and_magnitude(torch.zeros(0, 4), 0)
    assert total.tolist() == magnitude.tolist() == [0.0] * 4
