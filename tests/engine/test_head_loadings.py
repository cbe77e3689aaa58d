"""Loadings against the sum over every path, enumerated."""

from itertools import product

import pytest
import torch
from torch import Tensor

from whence.engine.head_loadings import Reading, row_of, split_by_source, split_by_target
from whence.engine.maps import AttentionMap, NormAt, SkipMap
from whence.engine.source_nodes import writes_of
from whence.engine.stream import FrozenStream, Group, Sources, Stage

LENGTH, WIDTH, HEADS = 4, 5, 4
Step = tuple[tuple[int, int] | None, Tensor]  # a head (stage, number) or none, and what it does to the whole stream


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def attention() -> AttentionMap:
    pattern = random(2, LENGTH, LENGTH, 2)  # group, key, query, share
    sees = torch.ones(LENGTH, LENGTH).triu()[None, :, :, None]
    return AttentionMap(random(WIDTH, HEADS * 3), random(2, 3, WIDTH), pattern * sees, random(LENGTH, WIDTH))


def skip() -> SkipMap:
    return SkipMap(random(WIDTH, WIDTH), random(LENGTH), random(LENGTH, WIDTH))


def stream() -> FrozenStream:
    """Three attentions, one beside a skip; a feature that writes at two stages."""
    every = list(range(LENGTH + 1))
    feature = Group("mlp.feature", 0, torch.arange(3), [0, 1, 1, 3, 3])
    token = Group("embed", None, torch.arange(LENGTH), every, offset=3)
    written = [Sources(0, random(3, WIDTH), None, None) for _ in range(2)]
    stages = (
        Stage(attention()),
        Stage(None, (skip(),), (written[0],)),
        Stage(attention(), (skip(),), (written[1],)),
        Stage(attention()),
    )
    final = NormAt(None, torch.ones(LENGTH, dtype=torch.float64))
    return FrozenStream(
        stages, (feature, token), (Sources(1, random(LENGTH, WIDTH), None, None),), final, LENGTH, WIDTH
    )


def steps(stage: Stage, number: int) -> list[Step]:
    """Everything one stage can do to the stream, as matrices [to position, to channel, from position, from channel]."""
    same = torch.eye(LENGTH, dtype=torch.float64)
    found: list[Step] = [(None, torch.einsum("qk,de->qdke", same, torch.eye(WIDTH, dtype=torch.float64)))]
    for one in stage.skips:
        found.append((None, torch.einsum("qk,k,de->qdke", same, one.scale, one.matrix)))
    if stage.attention is not None:
        output = stage.attention.output.view(WIDTH, HEADS, 3)
        for head in range(HEADS):
            pattern = stage.attention.pattern[head // 2, :, :, head % 2]
            matrix = output[:, head] @ stage.attention.value[head // 2]
            found.append(((number, head), torch.einsum("kq,de->qdke", pattern, matrix)))
    return found


def paths(model: FrozenStream, first: int, target: Reading, start: Tensor) -> dict[tuple, float]:
    """The weight of every path from a stream that enters stage `first`, by the heads it crosses, lowest first."""
    total: dict[tuple, float] = {}
    for chosen in product(*(steps(model.stages[n], n) for n in range(first, target.stage))):
        here = start
        for _, matrix in chosen:
            here = torch.einsum("qdke,ke->qd", matrix, here)
        heads = tuple(head for head, _ in chosen if head is not None)
        total[heads] = total.get(heads, 0.0) + float(here[target.position] @ target.covector)
    return total


def by_hand(model: FrozenStream, number: int, target: Reading, end: int) -> tuple[dict, float]:
    """Loadings and the direct part: paths counted at their lowest head (end 0) or highest (end -1)."""
    writes = writes_of(model, number)
    loadings: dict[tuple[int, int], float] = {}
    direct = 0.0
    for stage, vector in writes.at.items():
        if stage >= target.stage:
            continue
        start = torch.zeros(LENGTH, WIDTH, dtype=torch.float64)
        start[writes.position] = vector
        for heads, weight in paths(model, stage + 1, target, start).items():
            if heads:
                loadings[heads[end]] = loadings.get(heads[end], 0.0) + weight
            else:
                direct += weight
    return loadings, direct


SOURCES = (0, 2, 3, 5, 6)  # features at positions 0 and 2; tokens 0, 2 and 3
TARGETS = ((2, 2), (3, 3), (4, 3))  # stage and position


def test_loadings_by_source_count_each_path_at_its_lowest_head() -> None:
    torch.manual_seed(0)
    model = stream()
    for stage, position in TARGETS:
        target = Reading(stage, position, random(WIDTH))
        found = split_by_source(model, target, [writes_of(model, number) for number in SOURCES])
        for number, (loadings, direct) in zip(SOURCES, found, strict=True):
            agree(loadings, direct, *by_hand(model, number, target, 0))


def test_loadings_by_target_count_each_path_at_its_highest_head() -> None:
    torch.manual_seed(1)
    model = stream()
    targets = [Reading(stage, position, random(WIDTH)) for stage, position in TARGETS]
    for number in SOURCES:
        found = split_by_target(model, writes_of(model, number), targets)
        for target, (loadings, direct) in zip(targets, found, strict=True):
            agree(loadings, direct, *by_hand(model, number, target, -1))


def agree(loadings: dict[int, Tensor], direct: Tensor, expected: dict, straight: float) -> None:
    assert float(direct) == pytest.approx(straight, abs=1e-12)
    for stage, values in loadings.items():
        for head, value in enumerate(values.tolist()):
            assert value == pytest.approx(expected.pop((stage, head), 0.0), abs=1e-11)
    assert not expected


def test_a_row_holds_every_source_by_number() -> None:
    torch.manual_seed(2)
    model = stream()
    target = Reading(4, 3, random(WIDTH))
    row = row_of(model, target)
    for number in SOURCES:
        loadings, direct = by_hand(model, number, target, 0)
        assert float(row[number]) == pytest.approx(sum(loadings.values()) + direct, abs=1e-11)
