import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.engine.strongest import Strongest
from whence.results.keys import Node
from whence.results.runs import Run


def run(layer: int, size: int) -> Run:
    return Run(Node("attn.head", layer, 0), range(size))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), k=st.integers(1, 12), seed=st.integers(0, 99))
def test_seen_in_pieces_or_at_once_the_same_units_are_kept_and_nothing_is_lost(
    sizes: list[int], k: int, seed: int
) -> None:
    scores = torch.randn(2, 3, 2, sum(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    strongest = Strongest(k)
    for layer, piece in enumerate(scores.split(sizes, dim=-1)):
        strongest.take(run(layer, sizes[layer]), piece)
    runs, kept, rest = strongest.result()
    names = [str(node) for layer, size in enumerate(sizes) for node in run(layer, size)]
    best = scores.abs().mean((0, 1, 2)).topk(min(k, sum(sizes))).indices.sort().values
    assert [str(node) for one in runs for node in one] == [names[i] for i in best.tolist()]
    assert torch.equal(kept, scores[..., best])
    assert torch.allclose(kept.sum(-1) + rest, scores.sum(-1))


def test_strength_is_mean_size_so_that_opposite_signs_do_not_cancel() -> None:
    strongest = Strongest(1)
    strongest.take(run(0, 2), torch.tensor([[5.0, 1.0], [-5.0, 1.0]])[:, None, None])
    runs, _, _ = strongest.result()
    assert [str(node) for one in runs for node in one] == ["0.attn.head:0"]
