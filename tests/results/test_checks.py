import pytest
import torch

from whence.results.checks import check_list, check_numbers

ONE = ("node", "example")


@pytest.mark.parametrize(
    ("values", "target", "axes", "message"),
    [
        (torch.zeros(4, 1), torch.zeros(1), ONE, r"3 keys for values of shape \(4, 1\)"),
        (torch.zeros(3, 1), torch.zeros(2), ONE, r"target has shape \(2,\), and values \(3, 1\): it must be \(1,\)"),
        (torch.zeros(3, 1), torch.zeros(1), (*ONE, "target"), r"axes .*'target'\) do not name .* \(3, 1\)"),
        (torch.zeros(3, 1), torch.zeros(1), ("example", "node"), "known are"),
        (torch.zeros(3, 0), torch.zeros(0), ONE, r"shape \(3, 0\): there is no example"),
        (torch.zeros(3, 1).requires_grad_(), torch.zeros(1), ONE, r"requires_grad=True.*Pass values\.detach"),
        (torch.zeros(3, 1), torch.zeros(1, dtype=torch.bfloat16), ONE, r"target are torch\.bfloat16"),
        (torch.zeros(3, 1, device="meta"), torch.zeros(1), ONE, "values are torch.float32 on meta"),
    ],
)
def test_numbers_that_are_no_table_are_refused_with_both_shapes(
    values: torch.Tensor, target: torch.Tensor, axes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_numbers(3, values, target, axes)


def test_a_list_may_have_any_of_the_lengths_and_no_other() -> None:
    check_list("positions", [(), (1, 2)], 2, (2, 0))
    check_list("tokens", [("a",), ()], 2, None)
    with pytest.raises(ValueError, match=r"positions\[1\] has 1 entries, and the axes of values call for 2 or 0"):
        check_list("positions", [(), (1,)], 2, (2, 0))
