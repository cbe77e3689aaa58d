from collections.abc import Callable

import pytest
import torch

from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.runs import Run
from whence.results.scores import Scores

TOKENS = ("<s>", "The", " capital", " of", " Texas", " is")


@pytest.fixture
def make() -> Callable[..., Scores]:
    """Makes scores of embed, 2 × 3 heads by source token, two MLPs and a bias, with a small gap left in the ledger."""

    def make(examples: int = 1, targets: int = 0, positions: int = 0, tokens: tuple[str, ...] = TOKENS) -> Scores:
        heads = [Run(Node("attn.head", layer, 0, source=0), range(18), 6, "source") for layer in range(2)]
        keys = Keys(
            [Run(Node("embed")), *heads, Run(Node("mlp", 0)), Run(Node("mlp", 1)), Run(Node("final_norm.bias"))]
        )
        rest = [n for n in (positions, targets) if n]
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(len(keys), examples, *rest, generator=generator) ** 3
        names = [name for name, n in (("position", positions), ("target", targets)) if n]
        labels = tuple(f" word{i}" for i in range(targets)) or (" Austin",)
        where = tuple(range(len(tokens)))[-(positions or 1) :]
        return Scores(
            keys,
            values,
            values.sum(0) + 1e-4,
            ("node", "example", *names),
            (labels,) * examples,
            (tokens,) * examples,
            (where,) * examples,
            {"method": "direct"},
        )

    return make
