import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whence.results.keys import Node
from whence.results.runs import Run

# beartype samples with `random`, also while hypothesis draws; it decides nothing about what is drawn.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisWarning")
UNITS = st.one_of(
    st.builds(range, st.integers(0, 50), st.integers(0, 90), st.integers(1, 5)),
    st.lists(st.integers(0, 90), unique=True, max_size=6).map(tuple),
)
RUNS = st.one_of(
    st.just(Run(Node("mlp", 3))),
    st.builds(Run, st.just(Node("attn.head", 1, 0)), UNITS),
    st.builds(Run, st.just(Node("moe.neuron", 2, (0, 0), "up")), UNITS, st.integers(1, 7)),
    st.builds(Run, st.just(Node("attn.head", 0, 0, source=0)), UNITS, st.integers(1, 7), st.just("source")),
)


@given(RUNS)
def test_every_row_is_found_where_it_stands(run: Run) -> None:
    assert [run.find(node) for node in run] == list(range(len(run)))


@given(RUNS)
def test_json_gives_the_run_back(run: Run) -> None:
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_rows_are_the_template_with_their_unit() -> None:
    def printed(run: Run) -> list[str]:
        return [str(node) for node in run]

    assert printed(Run(Node("embed"))) == ["embed"]
    assert printed(Run(Node("attn.head", 1, 9), range(1, 3))) == ["1.attn.head:1", "1.attn.head:2"]
    assert printed(Run(Node("moe.neuron", 1, (0, 0)), (7, 8), 4)) == ["1.moe.neuron:1/3", "1.moe.neuron:2/0"]
    assert printed(Run(Node("attn.head", 1, 0), (5, 6), 3, "source")) == ["1.attn.head:1~2", "1.attn.head:2~0"]


@pytest.mark.parametrize(
    "node",
    [
        Node("attn.head", 1, 3),
        Node("attn.head", 0, 1),
        Node("attn.head", 1, 1, "q"),
        Node("attn.head", 1, 1, source=0),
        Node("mlp.neuron", 1, 1),
        Node("moe.neuron", 1, (0, 1)),
        Node("mlp", 1),
    ],
)
def test_a_node_of_another_run_is_not_found(node: Node) -> None:
    assert Run(Node("attn.head", 1, 0), range(3)).find(node) is None


def test_a_source_past_the_prompt_is_not_taken_for_the_next_head() -> None:
    run = Run(Node("attn.head", 1, 0), range(6), 3, "source")

    assert run.find(Node("attn.head", 1, 0, source=3)) is None
    assert run.find(Node("attn.head", 1, 0)) is None


def test_units_that_make_no_node_are_refused() -> None:
    with pytest.raises(ValueError, match="it takes no index"):
        Run(Node("mlp", 1), range(3))
    with pytest.raises(ValueError, match="count from 0"):
        Run(Node("attn.head", 1, 0), range(-1, 3))
    with pytest.raises(ValueError, match="inner is 0"):
        Run(Node("attn.head", 1, 0), range(3), 0)
