"""From keys back to units, and what is refused."""

from typing import Any

import pytest
import torch

from circuit_cases import pairs, random_saes, random_transcoders, small
from circuit_chosen import circuit_of, some_pairs
from whence.engine.ablations.selecting import placed, slots_of
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.examples import examples_of
from whence.results.keys import Node
from whence.results.nodes import NodeTable

KINDS: dict[str, tuple[str, Any]] = {
    "saes": ("gpt2", random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})),
    "embeddings": ("gpt2", random_saes([0], {"embed": 32})),
    "post-norm": ("gemma2", random_saes(range(2), {"attn_z": 32, "mlp_out_normed": 32})),
    "skips": ("llama", random_transcoders(range(2), 32, skip=True)),
    "heads and neurons": ("gpt_neox", ["attn.head", "mlp.neuron"]),
    "whole": ("llama", ["attn", "mlp", "embed"]),
}


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("slots", [(), ("a", "b")])
def test_every_key_leads_back_to_its_unit(name: str, slots: tuple[str, ...]) -> None:
    family, dictionaries = KINDS[name]
    model = small(family)
    network = network_of(model, dictionaries)
    nodes = circuit_of(model, dictionaries, lambda _, unit, slot: (unit + slot) % 2 == 0, slots, edges=False).nodes
    found = placed(network, nodes)
    seen = 0
    for site, here in found.items():
        for number, unit, slot in zip(here.number.tolist(), here.unit.tolist(), here.slot.tolist(), strict=True):
            end, index = site.units.name(unit)
            name_ = f"{site.name}.{end}" if end else site.name
            assert nodes[number] == Node(name_, site.layer, index, position=slot if slots else None)
            seen += 1
    assert seen == len(nodes) - 1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("1.resid_mid.feature:3", r"1\.resid_mid\.feature:3 is at no site of these dictionaries \(embed, 0\.attn_out"),
        ("2.resid_post.feature:3", "is at no site"),
        ("1.resid_post.feature:999", r"999 is past the \d+ units of 1\.resid_post"),
        ("1.attn.head:0", "is at no site"),
    ],
)
def test_a_node_that_is_nowhere_is_named(key: str, said: str) -> None:
    network = network_of(small("gpt2"), KINDS["saes"][1])
    with pytest.raises(ValueError, match=said):
        placed(network, NodeTable.from_nodes([Node.parse(key), Node("metric")]))


def test_slots_are_matched_by_name_or_by_number() -> None:
    model, (ids, other) = small("gpt2"), pairs()
    plain = examples_of(model, some_pairs(ids, other), None, None, aligned=True)
    assert slots_of((), plain).tolist() == [0, 0, 0, 0]
    assert slots_of(("a", "b", "c", "d"), plain).tolist() == [0, 1, 2, 3]
    slots = (("x", "x", "y", "z"), ("x", "y", "y", "z"))
    named = examples_of(model, some_pairs(ids, other, slots=slots, order=("x", "y", "z")), None, None, aligned=True)
    assert slots_of(("z", "x", "w", "y"), named).tolist() == [1, 3, 0]
    with pytest.raises(ValueError, match="tokens at y, z, and the circuit's positions are x, w"):
        slots_of(("x", "w"), named)
    with pytest.raises(ValueError, match="tokens at 0, 1, 2, 3, and the circuit's positions are a, b"):
        slots_of(("a", "b"), plain)
    summed = examples_of(model, some_pairs(ids, other), None, None, aligned=False)
    assert torch.equal(slots_of((), summed), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="several lengths and no names"):
        slots_of(("a",), summed)
