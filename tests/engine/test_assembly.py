"""The order of a graph's nodes, and rows whose columns are numbered, summed or left out."""

import pytest
import torch

from families import loaded, prompts
from graphs import linearized, transcoders
from whence.components.neurons import Neurons
from whence.engine.assembly import node_table, number
from whence.engine.expansion import chunks, solve
from whence.engine.expansion_order import readable
from whence.engine.linearize import Linearized
from whence.results.keys import LogitTarget

IDS = prompts(1, 5)
TARGETS = (LogitTarget("a", 5), LogitTarget("b", 64))


def linear(bos: tuple[int, ...] = (), name: str = "gpt2") -> Linearized:
    model = loaded(name, torch.float64)
    return linearized(model, IDS, transcoders(model, layers=(0, 2)), bos)


def keys(model: Linearized, selected: torch.Tensor, *, parity: bool) -> list[str]:
    return [str(node) for node in node_table(model, number(model, selected, parity=parity), TARGETS)]


def test_nodes_come_in_their_order() -> None:
    model = linear((0,))
    every = readable(model)
    features = [(at, p, f) for at, p, f in model.features()[0].tolist()]
    assert features == sorted(features)
    expected = [f"{at}.mlp.feature:{f}@{p}" for at, p, f in features[1:]]
    for layer, name in ((0, "mlp.error"), (1, "mlp"), (2, "mlp.error")):
        expected += [f"{layer}.{name if p else 'mlp'}@{p}" for p in range(5)]
    expected += [f"embed:{token}@{p}" for p, token in enumerate(IDS[0].tolist())]
    expected += [f"pos_embed@{p}" for p in range(5)]
    expected += ["rest", "bias", "output:5@4", "output:64@4"]
    assert keys(model, every[1:], parity=False) == expected
    assert "rest" not in keys(model, every, parity=False)


def test_the_other_tools_convention_has_no_positions_rest_or_bias() -> None:
    names = {key.split("@")[0] for key in keys(linear(), readable(linear())[3:], parity=True)}
    assert not names & {"pos_embed", "rest", "bias"}


@pytest.mark.parametrize("parity", [False, True])
def test_blocks_hold_kept_columns_and_the_sum_of_the_others(parity: bool) -> None:
    model = linear()
    selected = readable(model)[::2]
    numbering = number(model, selected, parity=parity)
    table = node_table(model, numbering, TARGETS)
    for chunk in chunks(model, selected):
        solved, group = solve(model, chunk), model.stream.groups[chunk.group]
        block = numbering.block(solved, group)
        assert len(block.columns) == len(block.columns.unique()) == block.values.shape[1]
        assert [table[int(row)].layer for row in block.rows] == [group.layer] * len(chunk.node)
        total = solved.values.sum(1) + solved.constant
        if parity:
            kept = numbering.place[solved.columns] >= 0
            total = solved.values[:, kept].sum(1)
        assert torch.allclose(block.values.sum(1), total)


def test_neurons_are_numbered_by_position_then_neuron() -> None:
    model = loaded("gpt2", torch.float64)
    found = linearized(model, IDS, Neurons())
    table = node_table(found, number(found, readable(found), parity=False), TARGETS)
    assert [str(table[i]) for i in (0, 1, 128, 5 * 128)] == [
        "0.mlp.neuron:0@0",
        "0.mlp.neuron:1@0",
        "0.mlp.neuron:0@1",
        "1.mlp.neuron:0@0",
    ]
