"""A block's addition to the stream as a sum of constant multiples of outputs of the modules inside it.

With y = output - input of the block and o_i every distinct output inside it that is as wide as the stream,
y = sum_i c_i o_i is solved by least squares in float64. An output is dropped if the rest explains y without it,
outermost first, so that the innermost modules are left. Each token counts alike: a first token with a huge stream must
not hide the others.
Cost: one QR decomposition of [token * d_model, outputs] a block.
"""

import torch
from torch import Tensor

from whence.model.structure.calls import Call, Puzzle, same

UNEXPLAINED = 1e-4  # share of a block's addition that its writers may leave over
NEEDED = 1e-5  # share of it that an output must explain to count
SMALL = 1e-3  # a constant below this multiplies nothing


def terms_of(block: Call, calls: list[Call]) -> list[tuple[Call, float]]:
    """The innermost outputs whose constant multiples add up to what the block adds."""
    assert block.input is not None
    assert block.output is not None
    added = block.output.double() - block.input.double()
    weight = 1 / added.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    candidates = _distinct_outputs(block, calls)
    columns = [(call.output.double() * weight).flatten() for call in candidates if call.output is not None]
    reduced = torch.linalg.qr(torch.stack([*columns, (added * weight).flatten()], dim=1), mode="r").R
    matrix, target = reduced[:, :-1], reduced[:, -1]
    keep = list(range(len(candidates)))
    left = _unexplained(matrix[:, keep], target)
    if left > UNEXPLAINED:
        raise Puzzle(
            f"no constant multiples of the outputs inside {block.path} ({type(block.module).__name__}) add up to what "
            f"it adds to the stream; {left:.1%} is left over"
        )
    for index in reversed(range(len(candidates))):
        fewer = [i for i in keep if i != index]
        if _unexplained(matrix[:, fewer], target) <= max(NEEDED, 2 * left):
            keep = fewer
    constants = _solve(matrix[:, keep], target).tolist()
    return [(candidates[i], c) for i, c in zip(keep, constants, strict=True) if abs(c) > SMALL]


def _distinct_outputs(block: Call, calls: list[Call]) -> list[Call]:
    """Calls inside the block that returned something as wide as the stream, each value once, from the innermost."""
    distinct: list[Call] = []
    for call in calls:
        fits = call.output is not None and block.input is not None and call.output.shape == block.input.shape
        if fits and not any(same(call.output, other.output) for other in distinct):
            distinct.append(call)
    return distinct


def _solve(matrix: Tensor, target: Tensor) -> Tensor:
    return torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution[:, 0]


def _unexplained(matrix: Tensor, target: Tensor) -> float:
    rest = target if matrix.shape[1] == 0 else target - matrix @ _solve(matrix, target)
    return float(rest.norm() / target.norm().clamp_min(1e-300))
