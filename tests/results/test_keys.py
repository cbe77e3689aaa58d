import pytest
from hypothesis import given
from hypothesis import strategies as st

from whence.results.keys import Edge, LogitTarget, Node
from whence.results.names import RULES, Rule

COUNT = st.integers(min_value=0, max_value=10**6)


def _field(need: str, values: st.SearchStrategy) -> st.SearchStrategy:
    return {"required": values, "none": st.none(), "optional": st.none() | values}[need]


def _nodes_named(name: str) -> st.SearchStrategy[Node]:
    rule: Rule = RULES[name]
    return st.builds(
        Node,
        name=st.just(name),
        layer=_field(rule.layer, COUNT),
        index=_field(rule.index, st.tuples(COUNT, COUNT) if rule.pair else COUNT),
        end=st.sampled_from([None, *rule.ends]),
        position=st.none() | COUNT,
        source=st.none() | COUNT if rule.source else st.none(),
    )


NODES = st.sampled_from(sorted(RULES)).flatmap(_nodes_named)


@given(NODES)
def test_parsing_a_printed_node_gives_it_back(node: Node) -> None:
    assert Node.parse(str(node)) == node


@given(st.text("0123456789.:/@~-abdehlmnoprtu_", max_size=24))
def test_a_text_either_fails_with_its_name_or_prints_back_exactly(text: str) -> None:
    try:
        printed = str(Node.parse(text))
    except ValueError as error:
        printed = text if text in str(error) else ""

    assert printed == text


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_name_prints_differently_from_every_other(name: str) -> None:
    rule = RULES[name]
    index = None if rule.index != "required" else ((3, 1) if rule.pair else 3)
    node = Node(name, None if rule.layer == "none" else 2, index)

    assert Node.parse(str(node)).name == name


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("embed:262@14", Node("embed", index=262, position=14)),
        ("embed", Node("embed")),
        ("0.embed.feature:7", Node("embed.feature", 0, 7)),
        ("output:50257", Node("output", index=50257)),
        ("9.attn.head:6@14~10", Node("attn.head", 9, 6, position=14, source=10)),
        ("9.attn.head:6~10", Node("attn.head", 9, 6, source=10)),
        ("9.attn.head:6.qk@14", Node("attn.head", 9, 6, "qk", 14)),
        ("0.moe.neuron:3/17.gate", Node("moe.neuron", 0, (3, 17), "gate")),
        ("3.resid_post", Node("resid_post", 3)),
        ("3.resid_post.error@2", Node("resid_post.error", 3, position=2)),
        ("0.glu.up:12", Node("glu.up", 0, 12)),
        ("0.glu.up.delta", Node("glu.up.delta", 0)),
        ("final_norm.bias", Node("final_norm.bias")),
        ("rest", Node("rest")),
        ("2.rest", Node("rest", 2)),
        ("4.block", Node("block", 4)),
    ],
)
def test_the_grammar_reads_as_documented(text: str, node: Node) -> None:
    assert Node.parse(text) == node
    assert str(node) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a node key"),
        ("9.attn.head:06", "not a node key"),
        ("9.attn.head:6 ", "not a node key"),
        ("9.attn.head:٦", "not a node key"),
        ("attn.head:6", "'attn.head:6': it needs a layer"),
        ("9.attn.head", "'9.attn.head': it needs an index"),
        ("9.mlp:4", "'9.mlp:4': it takes no index, got 4"),
        ("9.embed:4", "it takes no layer, got 9"),
        ("0.moe.neuron:3", "its index is expert/neuron"),
        ("0.mlp.neuron:3/1", "its index is one number"),
        ("9.attn.head:6.gate", "no end 'gate'; its ends are q, k, v, qk"),
        ("0.mlp.feature:6.gate", "no end 'gate'."),
        ("9.mlp~3", "only attention reads a source token"),
        ("9.mlp@-1", "positions in a key are absolute"),
        ("9.attn.head:6~-2", "positions in a key are absolute"),
    ],
)
def test_a_malformed_key_is_refused_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Node.parse(text)

    assert message in str(caught.value)


def test_a_near_miss_suggests_the_whole_key() -> None:
    with pytest.raises(ValueError, match=r"Did you mean '9\.attn\.head:6@14'"):
        Node.parse("9.attn.haed:6@14")


def test_a_name_unlike_any_other_lists_the_names() -> None:
    with pytest.raises(ValueError, match="The names are embed, pos_embed"):
        Node("zzzzzz")


@pytest.mark.parametrize("fields", [{"layer": -1}, {"index": -1}])
def test_negative_layers_and_indices_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="count from 0"):
        Node("attn.head", **{"layer": 0, "index": 0, **fields})


def test_an_edge_prints_source_first() -> None:
    assert str(Edge(Node("mlp", 0), Node("output", index=3))) == "0.mlp -> output:3"


def test_a_logit_target_is_plain_data() -> None:
    assert LogitTarget(" Austin", 7) == LogitTarget(token_str=" Austin", vocab_idx=7)
