"""Indirect effects on sentences of every template of the demo grammar, held against clamped forward passes."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

import whence
from circuit_cases import Wide
from circuit_oracle import Oracle
from circuit_parts import native_parts, sae_part
from whence.components.lazy import whole
from whence.components.sae import SAE
from whence.methods.local_edges import local_edges
from whence.methods.local_edges_object import LocalEdges
from whence.model.model import Model
from whence.results.local_numbers import LocalNumbers
from whence.targets.pairs import Pairs

TEMPLATES = ("simple", "pp", "orc")
NAMES = ("sae_resid_post", "sae_attn_out", "sae_mlp_out")
UP, DOWN, ATTENTION, MLP = "1.resid_post", "2.resid_post", "2.attn_out", "2.mlp_out"
THRESHOLDS = (0.01, 0.05, 0.2)


@cache
def model() -> Model:
    return Model(whence.Model.from_pretrained(whence.demo.model_path()).hf.double())


@cache
def saes() -> tuple[SAE, ...]:
    found: list[SAE] = []
    for name in NAMES:
        for one in whence.load_dictionary(whence.demo.dictionary_path(name)):
            parts = {field: whole(getattr(one, field)).double() for field in ("W_enc", "b_enc", "W_dec", "b_dec")}
            found.append(replace(one, **parts))
    return tuple(found)


@cache
def pairs(kind: str) -> Pairs:
    return whence.demo.agreement_pairs(whence.Model.from_pretrained(whence.demo.model_path()), kind, n=8)


@cache
def edges(kind: str, threshold: float = 0.05, batch_size: int = 8) -> LocalEdges:
    return local_edges(model(), list(saes()), pairs(kind), nodes=threshold, batch_size=batch_size)


def size(numbers: LocalNumbers) -> float:
    return float(numbers.value.abs().max())


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", TEMPLATES)
def test_indirect_effects_are_there_in_every_template_at_every_threshold(kind: str, threshold: float) -> None:
    here = edges(kind, threshold)
    direct = size(here.effect(UP, DOWN))
    for through in ([ATTENTION], [MLP], [ATTENTION, MLP]):
        assert size(here.indirect(UP, DOWN, through=through)) > 1e-3 * direct > 0


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", TEMPLATES)
def test_batches_of_any_size_say_the_same(kind: str, batch_size: int) -> None:
    for through in ([ATTENTION], [MLP]):
        mine, theirs = (edges(kind, 0.05, size).indirect(UP, DOWN, through=through) for size in (8, batch_size))
        torch.testing.assert_close(mine.dense(), theirs.dense(), rtol=1e-5, atol=1e-7)


def test_sentences_of_several_lengths_say_what_each_says_alone() -> None:
    parts = [pairs(kind)[:1] for kind in TEMPLATES]
    columns = ("clean", "patch", "clean_answers", "patch_answers")
    mixed = Pairs(*(tuple(row for part in parts for row in getattr(part, column)) for column in columns))
    every = local_edges(model(), list(saes()), mixed, nodes=0.05)
    for number, part in enumerate(parts):
        alone = local_edges(model(), list(saes()), part, nodes=0.0)
        for through in ([ATTENTION], [MLP]):
            mixed_in, own = (one.indirect(UP, DOWN, through=through) for one in (every, alone))
            for target, source, value in strongest(mixed_in, number, 8):
                assert own.at(example=0, target=target, source=source) == pytest.approx(value, rel=1e-5, abs=1e-8)


def strongest(numbers: LocalNumbers, example: int, count: int) -> list[tuple[str, str, float]]:
    """Keys of both ends of the largest numbers of an example, and the numbers."""
    lines = (numbers.index[0] == example).nonzero()[:, 0]
    lines = lines[numbers.value[lines].abs().argsort(descending=True)[:count]]
    assert len(lines)
    _, positions, targets, _, sources = numbers.axes.values()
    return [
        (f"{targets[t]}@{positions[tp]}", f"{sources[s]}@{positions[sp]}", float(value))
        for (_, tp, t, sp, s), value in zip(numbers.index.T[lines].tolist(), numbers.value[lines], strict=True)
    ]


def oracle(answers: tuple[int, int]) -> Oracle:
    def metric(logits: Tensor) -> Tensor:
        return logits[:, answers[1]] - logits[:, answers[0]]

    parts = [sae_part(model().hf, one) for one in saes()] + native_parts(model().hf, "embed", model().n_layers)
    return Oracle(model().hf, tuple(parts), metric)


def place(key: str) -> tuple[int, int]:
    """Position and unit of a key, in a table of all units; the error is the last."""
    unit, _, position = key.partition("@")
    return int(position), int(unit.partition(":")[2] or 512)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_indirect_effects_are_the_slopes_of_clamped_passes(kind: str) -> None:
    """A source is moved a little with attention or MLP of the block free, and with both clamped."""
    pair, step = pairs(kind)[:1], 1e-5
    ids, other = torch.tensor(pair.clean), torch.tensor(pair.patch)
    slow = oracle((pair.clean_answers[0], pair.patch_answers[0]))
    with Wide(), torch.no_grad():
        here = local_edges(model(), list(saes()), pair, nodes=0.05)
        x, moves = slow.values(ids)[UP][0], slow.moves(ids, other, UP)
        held = {part.key for part in slow.parts} - {UP, DOWN}
        for through in ([ATTENTION], [MLP], [ATTENTION, MLP]):
            with torch.enable_grad():
                free, clamped = (slow.numbers(ids, UP, DOWN, some) for some in (held - {*through}, held))
            for target, source, value in strongest(here.indirect(UP, DOWN, through=through), 0, 3):
                (position, unit), (row, column) = place(source), place(target)
                way = torch.zeros_like(x)
                way[:, position] = step * moves[:, position, unit]
                slopes = [(numbers(x + way) - numbers(x - way)) / (2 * step) for numbers in (free, clamped)]
                expected = float((slopes[0] - slopes[1]).view(ids.shape[1], -1)[row, column])
                assert value == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_everything_is_what_goes_directly_and_what_goes_through_attention_and_mlp(kind: str) -> None:
    here = edges(kind)
    stream_alone = local_edges(model(), [one for one in saes() if one.site == "resid_post"], pairs(kind), nodes=0.05)
    total, direct = stream_alone.effect(UP, DOWN), here.effect(UP, DOWN)
    both = here.indirect(UP, DOWN, through=[ATTENTION, MLP])
    assert total.axes == direct.axes
    torch.testing.assert_close(total.dense(), direct.dense() + both.dense(), rtol=1e-6, atol=1e-8)
    one_each = sum(here.indirect(UP, DOWN, through=[site]).dense() for site in (ATTENTION, MLP))
    in_turn = both.dense() - one_each  # the paths from attention into the MLP
    assert float(in_turn.abs().max()) > 1e-4 * size(direct)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_edges_between_streams_are_direct_and_not_the_total(kind: str) -> None:
    here = edges(kind)
    direct, both = here.effect(UP, DOWN), here.indirect(UP, DOWN, through=[ATTENTION, MLP])
    assert float(both.value.abs().sum()) > 0.02 * float(direct.value.abs().sum())
    same_token = direct.index[1] == direct.index[3]
    assert bool(same_token.all())
    moved = len(pairs(kind).order) - 1 > pairs(kind).order.index("subject")  # else the last token alone is moved
    assert bool((both.index[1] != both.index[3]).any()) == moved  # attention brings other tokens in
