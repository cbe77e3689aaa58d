"""Random weights and the plain formulas that every format is read back against."""

import json

import torch

FEATURES, WIDTH = 6, 4
X = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(99))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape) + len(shape)))


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def top(pre, k):
    kept = torch.zeros_like(pre)
    for row, own in zip(kept, pre, strict=True):
        for feature in sorted(range(len(own)), key=lambda i: -own[i])[:k]:
            row[feature] = own[feature]
    return kept


def above(pre, threshold):
    return pre * (pre > threshold)


def same(one, other):
    return torch.allclose(one, other, atol=1e-5)
