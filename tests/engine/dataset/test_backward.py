from dataclasses import replace

import pytest
import torch

from dataset_parts import random_parts, small, summed, wired
from whence.engine.dataset import backward
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS


def test_how_many_cotangents_are_pulled_together_follows_their_size_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small("gpt2")
    wiring = wired(model, random_parts(model, only=("mlp.up", "mlp.down")), Options(METRICS))
    wiring = replace(wiring, routes=dict.fromkeys(wiring.routes, "backward"))
    many, together, true = summed(wiring), list[int](), torch.autograd.grad

    def counted(value: torch.Tensor, leaves: object, cotangents: torch.Tensor, **options: bool) -> object:
        together.append(len(cotangents))
        return true(value, leaves, cotangents, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(backward, "BUDGET", 1)
    one = summed(wiring)
    assert set(together) == {1}
    for pair, sums in many.items():
        assert all(torch.allclose(one[pair][metric], block, atol=1e-12) for metric, block in sums.items())
