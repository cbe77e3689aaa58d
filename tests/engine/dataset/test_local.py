from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.engine.dataset import local
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.local import Counting, _together, count_local

MASKS = st.integers(0, 5).flatmap(
    lambda units: st.lists(st.lists(st.booleans(), min_size=units, max_size=units), min_size=1, max_size=9).map(
        lambda rows: torch.tensor(rows, dtype=torch.bool).reshape(len(rows), units)
    )
)


@given(MASKS, st.data())
@settings(deadline=None, max_examples=60)
def test_the_units_that_count_at_a_position_are_those_of_its_mask(mask: Tensor, data: Any) -> None:
    at = torch.tensor(data.draw(st.lists(st.integers(0, len(mask) - 1), min_size=1, max_size=6)), dtype=torch.long)
    found = Counting(mask).at(at)
    for row, position in enumerate(at.tolist()):
        assert found.index[row][found.real[row]].tolist() == mask[position].nonzero()[:, 0].tolist()
    assert found.every == bool(mask[at].all())


@given(MASKS, MASKS, st.integers(1, 3), st.sampled_from([1, 20, 1 << 22]))
@settings(deadline=None, max_examples=60)
def test_positions_where_both_sides_count_come_once_in_pieces_that_fit(
    targets: Tensor, sources: Tensor, width: int, budget: int
) -> None:
    n = min(len(targets), len(sources))
    kt, ks = targets[:n].sum(1), sources[:n].sum(1)
    own = local.BUDGET
    try:
        local.BUDGET = budget
        pieces = list(_together(kt, ks, width))
    finally:
        local.BUDGET = own
    seen = torch.cat(pieces).tolist() if pieces else []
    assert sorted(seen) == ((kt > 0) & (ks > 0)).nonzero()[:, 0].tolist()
    for piece in pieces:
        t, s = int(kt[piece].max()), int(ks[piece].max())
        assert len(piece) == 1 or len(piece) * max(t * s, (t + s) * width) <= budget


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 7), st.integers(0, 99), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_pairs_of_active_units_sum_like_the_dense_table(
    targets: int, sources: int, tokens: int, seed: int, density: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    kept = lambda x: x * (torch.rand(x.shape, generator=generator) <= density)  # noqa: E731
    D, U, X, c = normal(tokens, targets, 3), normal(sources, 3), kept(normal(tokens, sources)), kept(normal(tokens, 1))
    weight = kept(normal(tokens, targets)) * c
    window = Window()
    weights = {"attr": weight, "mean_squared_attr": weight}
    count_local(lambda at, units: D[at[:, None], units], U, X, weights, window, ("t", "s"))
    A = weight[..., None] * (D @ U.T) * X[:, None]
    assert torch.allclose(window.sums["t", "s"]["attr"], A.sum(0))
    assert torch.allclose(window.sums["t", "s"]["mean_squared_attr"], A.square().sum(0))
