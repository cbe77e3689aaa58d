"""What cannot be removed, and what is no graph of this model and dictionary, is said rather than measured."""

import re
from dataclasses import replace

import pytest
import torch

from families import loaded
from verification.by_gradient import PROMPT, feature_graph, transcoders
from whence.components.sets import DictionarySet
from whence.methods.graph import attribution_graph
from whence.results.weights import Weights
from whence.verification.choosing import largest_weight
from whence.verification.verify import verify


def test_a_graph_of_another_dictionary_is_refused_by_its_fingerprint() -> None:
    model, own = loaded("llama"), transcoders()
    other = DictionarySet((*list(own)[:2], replace(own[2], b_dec=own[2].b_dec + 1)))
    graph = attribution_graph(model, own, PROMPT)
    with pytest.raises(ValueError, match=graph.provenance["dictionary"]["fingerprint"]):
        verify(graph, model, other)


@pytest.mark.parametrize("k", [-5, 0, True])
def test_no_nodes_are_not_verified(k: int) -> None:
    dictionary = transcoders()
    graph = feature_graph("llama", dictionary)
    with pytest.raises(ValueError, match="how many nodes to remove"):
        verify(graph, loaded("llama"), dictionary, k=k)
    with pytest.raises(ValueError, match="nodes= is empty"):
        verify(graph, loaded("llama"), dictionary, nodes=[])


@pytest.mark.parametrize(
    ("parity", "node", "why"),
    [
        (None, "bias", "bias cannot be removed: it stands for many writes"),
        (None, "rest", "rest cannot be removed: it stands for many writes"),
        (None, "output:7@8", "output:7@8 cannot be removed: it is what the graph explains"),
        ("circuit-tracer", "0.mlp.error@0", "0.mlp.error@0 cannot be removed: the graph leaves MLPs"),
    ],
)
def test_what_is_no_single_write_cannot_be_removed(parity: str | None, node: str, why: str) -> None:
    model, dictionary = loaded("llama"), transcoders()
    graph = attribution_graph(model, dictionary, PROMPT, torch.tensor([7]), max_nodes=4, parity=parity)
    with pytest.raises(ValueError, match=re.escape(why)):
        verify(graph, model, dictionary, nodes=[node])


def test_the_largest_weight_is_that_of_a_node_that_can_be_removed() -> None:
    model, dictionary = loaded("llama"), transcoders()
    graph = attribution_graph(model, dictionary, PROMPT)
    dense = graph.weights.dense()
    bias = graph.nodes.find("bias")
    dense[-1, bias] = 1e6
    changed = replace(graph, weights=Weights.from_dense(dense))
    dense[:, bias] = 0
    assert largest_weight(changed) == float(dense.abs().max())


def test_a_shard_is_not_verified_before_it_is_merged() -> None:
    dictionary = transcoders()
    shard = attribution_graph(loaded("llama"), dictionary, PROMPT, torch.tensor([5]), shard=(0, 2))
    with pytest.raises(ValueError, match=r"shard 0 of 2.*Graph\.merge"):
        verify(shard, loaded("llama"), dictionary)
