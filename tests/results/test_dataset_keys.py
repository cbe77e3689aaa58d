import pytest
from hypothesis import given
from hypothesis import strategies as st

from whence.results.dataset_keys import node_of, site_of
from whence.results.keys import Node
from whence.results.names import RULES

NUMBERS = st.integers(0, 10**6)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    name = draw(st.sampled_from(sorted(RULES)))
    rule = RULES[name]
    layer = None if rule.layer == "none" else draw(NUMBERS)
    if rule.layer == "optional" and draw(st.booleans()):
        layer = None
    indexed = rule.index == "required" or name == "embed"
    index = draw(st.tuples(NUMBERS, NUMBERS) if rule.pair else NUMBERS) if indexed else None
    end = draw(st.sampled_from([None, *rule.ends])) if indexed else None
    return Node(name, layer, index, end)


@given(nodes())
def test_site_and_number_give_back_every_node_of_every_name(node: Node) -> None:
    assert node_of(*site_of(node)) == node


@given(nodes(), nodes())
def test_units_of_one_site_differ_in_their_number_alone(first: Node, second: Node) -> None:
    (site, number), (other, other_number) = site_of(first), site_of(second)

    assert ((site, number) == (other, other_number)) == (first == second)
    assert isinstance(number, int)
    assert not any(part in site for part in "@~")


@pytest.mark.parametrize(
    ("site", "id", "key"),
    [
        ("0.attn.q", 17, "0.attn.q:17"),
        ("0.attn.q.delta", 0, "0.attn.q.delta"),
        ("0.attn.head.q", 6, "0.attn.head:6.q"),
        ("1.mlp.neuron.gate", 3, "1.mlp.neuron:3.gate"),
        ("0.moe.neuron:3.gate", 17, "0.moe.neuron:3/17.gate"),
        ("0.moe.neuron:3", 17, "0.moe.neuron:3/17"),
        ("embed", 262, "embed:262"),
        ("embed.matrix", 4, "embed.matrix:4"),
        ("pos_embed", 0, "pos_embed"),
        ("1.resid_post.feature", 5, "1.resid_post.feature:5"),
        ("output", 9, "output:9"),
    ],
)
def test_sites_are_keys_without_an_index(site: str, id: int, key: str) -> None:
    assert str(node_of(site, id)) == key
    assert site_of(Node.parse(key)) == (site, id)


@pytest.mark.parametrize(
    ("site", "id", "said"),
    [
        ("output.stream", 3, "Ask for a token"),
        ("bias", 2, "its number is 0, not 2"),
        ("0.attn.query", 0, "not the name of a node"),
        ("0 attn", 0, "not a site"),
    ],
)
def test_what_is_no_unit_is_refused(site: str, id: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        node_of(site, id)


@pytest.mark.parametrize(
    ("key", "said"), [("0.attn.q:3@5", "leave out '@'"), ("embed", "say which token"), ("pos_embed:4", "one source")]
)
def test_nodes_of_no_site_are_refused(key: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        site_of(Node.parse(key))
