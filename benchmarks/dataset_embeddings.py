"""Summing what each token adds to each target: one indexed sum, beside a loop over elements."""

import torch
from torch import Tensor

from dataset_model import Setup


def by_scatter(setup: Setup) -> Tensor:
    """What each token adds to each target, one indexed sum: [vocab, target]."""
    value = setup.importances[setup.shape.sites[0]].flatten(0, 1)
    return torch.zeros(setup.shape.vocab, value.shape[1]).index_add_(0, setup.ids.flatten(), value)


def by_loop(setup: Setup) -> Tensor:
    """The same, element by element."""
    value = setup.importances[setup.shape.sites[0]].flatten(0, 1)
    found = torch.zeros(setup.shape.vocab, value.shape[1])
    for place, token in enumerate(setup.ids.flatten().tolist()):
        for target in range(value.shape[1]):
            found[token, target] += value[place, target]
    return found
