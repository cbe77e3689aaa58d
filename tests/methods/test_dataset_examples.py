from pathlib import Path

import pytest

from dataset_runs import documents, given, merged, model, planned
from families import loaded
from whence.errors import FileFormatError
from whence.methods.dataset_examples import EdgeExample, top_examples
from whence.results.dataset import DatasetAttributions

DATA = documents(4)
EDGES = {
    "embed:{token}": "0.attn.q:1",
    "0.attn.v:1": "0.attn.o:0",
    "0.attn.q:0": "0.attn.o:1",
    "0.attn.k.delta": "0.attn.o:1",
    "0.attn.o": "0.glu.up:0",
    "0.attn.o.delta": "output:5",
    "0.attn.v.bias": "0.attn.o:0",
    "0.glu.down:1": "output:9",
    "0.glu.gate:2": "0.glu.down:0",
}
EVERY = 10**6


@pytest.fixture(scope="module", params=["none", "both"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetAttributions]:
    """A folder of runs, and its result."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, DatasetAttributions(merged(planned(folder, DATA, weighting=request.param)))


def asked(run: Path, source: str, target: str, **options: int) -> list[EdgeExample]:
    return top_examples(run, model(), given().parameters, source, target, **options)


@pytest.mark.parametrize("source", EDGES)
def test_all_examples_of_an_edge_sum_to_its_attribution(run: tuple[Path, DatasetAttributions], source: str) -> None:
    folder, result = run
    target = EDGES[source]
    source = {"0.attn.o": "0.attn.o:1"}.get(source, source.format(token=DATA[1][0]))
    found = asked(folder, source, target, k=EVERY)
    raw = result.between(source, target, normalise="none").value
    assert sum(one.value for one in found) == pytest.approx(raw, rel=1e-4, abs=1e-5 * sum(abs(o.value) for o in found))
    sizes = [abs(one.value) for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0
    for one in found:
        assert 0 <= one.source_position <= one.target_position < len(DATA[one.row])


def test_positions_of_a_token_are_where_it_stands(run: tuple[Path, DatasetAttributions]) -> None:
    token = DATA[1][0]
    found = asked(run[0], f"embed:{token}", "0.attn.q:1", k=EVERY)
    stands = {(row, at) for row, ids in enumerate(DATA) for at, id in enumerate(ids) if id == token}
    assert {(one.row, one.source_position) for one in found} <= stands
    assert all(one.source_position == one.target_position for one in found)
    assert asked(run[0], f"embed:{token}", "0.attn.q:1", k=2) == found[:2]


@pytest.mark.parametrize(
    ("source", "target", "error", "said"),
    [
        ("0.attn.k:1", "0.attn.o:0", KeyError, "0.attn.k:1 is not stored: it is dead, or occurs nowhere in the data"),
        ("embed:63", "0.attn.q:0", KeyError, "embed:63 is not stored"),
        ("0.attn.v:0", "0.attn.o:77", KeyError, "0.attn.o:77 is not stored"),
        ("0.glu.down:0", "0.attn.q:0", ValueError, "does not reach 0.attn.q:0 directly"),
        ("0.attn.v:0", "output:5", ValueError, "does not reach output:5 directly"),
        ("0.attn.v:0@3", "0.attn.o:0", ValueError, "sums over all positions"),
        ("7.attn.v:0", "0.attn.o:0", ValueError, "does not reach"),
        ("embed", "0.attn.q:0", ValueError, "say which token"),
    ],
)
def test_units_that_are_not_there_are_refused(
    run: tuple[Path, DatasetAttributions], source: str, target: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        asked(run[0], source, target)


def test_numbers_below_one_another_model_and_a_folder_without_result_are_refused(
    run: tuple[Path, DatasetAttributions], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="k=0, batches=None; both are 1 or more"):
        asked(run[0], "0.attn.v:1", "0.attn.o:0", k=0)
    with pytest.raises(ValueError, match="was computed with another model or other components; load those"):
        top_examples(run[0], loaded("llama"), given().parameters, "0.attn.v:1", "0.attn.o:0")
    with pytest.raises(ValueError, match="another model or other components"):
        top_examples(run[0], model(), "mlp.neuron", "0.attn.v:1", "0.attn.o:0")
    with pytest.raises(FileFormatError, match="no finished dataset attributions"):
        asked(tmp_path, "0.attn.v:1", "0.attn.o:0")


def test_an_example_shows_its_text_with_both_positions_marked() -> None:
    tokens = tuple(f" t{n}" for n in range(30))
    said = str(EdgeExample(0, 17, 15, -0.25, tokens))
    assert said.startswith("-0.25   t3 t4")
    assert "⟨ t15⟩ t16[ t17] t18" in said
    assert "[⟨ t4⟩]" in str(EdgeExample(0, 4, 4, 1.0, tokens))
