import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whence
from whence.errors import FileFormatError
from whence.results import store
from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.runs import Run
from whence.results.scores import REST, Scores

# beartype samples with `random`, also while hypothesis draws; it decides nothing about what is drawn.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisWarning")
TEXT = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def tables(draw: st.DrawFn) -> Scores:
    """Any scores: every arrangement of axes, both dtypes, ragged prompts, values of very different sizes."""
    units, examples = draw(st.integers(0, 6)), draw(st.integers(1, 3))
    rest = draw(st.sampled_from([(), ("position",), ("target",), ("position", "target")]))
    sizes = {axis: draw(st.integers(1, 3)) for axis in rest}
    closing = draw(st.sampled_from([[], [Run(REST)]]))
    keys = Keys([Run(Node("embed")), Run(Node("mlp.neuron", 0, 0), range(units)), Run(Node("mlp.bias", 0)), *closing])
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randn(len(keys), examples, *sizes.values(), dtype=dtype, generator=generator)
    values *= 10.0 ** draw(st.integers(-6, 6))
    where = st.lists(st.integers(0, 99), min_size=sizes.get("position", 1), max_size=sizes.get("position", 1))
    labels = st.lists(TEXT, min_size=sizes.get("target", 1), max_size=sizes.get("target", 1))
    return Scores(
        keys,
        values,
        values.sum(0) + draw(st.sampled_from([0.0, 1e-3])),
        ("node", "example", *rest),
        tuple(tuple(draw(labels)) for _ in range(examples)),
        tuple(tuple(draw(st.lists(TEXT, max_size=4))) for _ in range(examples)),
        tuple(draw(st.just(()) | where.map(tuple)) for _ in range(examples)),
        draw(st.dictionaries(TEXT, JSON, max_size=3)),
    )


def _within(scores: Scores, actual: torch.Tensor, expected: torch.Tensor, parts: torch.Tensor) -> bool:
    """Equal up to the rounding of one sum in the dtype of the scores, relative to Σ|parts|."""
    bound = 4 * torch.finfo(scores.values.dtype).eps * (parts + scores.target.abs().double().mean())
    return bool(((actual - expected).abs() <= bound).all())


@given(tables())
def test_the_ledger_closes_by_definition(scores: Scores) -> None:
    total = scores.values.double().sum(0) + scores.remainder

    assert scores.remainder.dtype == scores.magnitude.dtype == torch.float64
    assert torch.allclose(total, scores.target.double(), rtol=0, atol=1e-12 * (1 + scores.magnitude.max().item()))
    assert torch.equal(scores.magnitude, scores.values.double().abs().sum(0))


@given(tables(), st.integers(0, 9), st.sampled_from(["abs", "signed"]))
def test_top_still_adds_up(scores: Scores, k: int, by: str) -> None:
    top = scores.top(k, by)

    assert _within(scores, top.remainder, scores.remainder, scores.magnitude)
    assert len(top.keys) <= k + 1


@given(tables())
def test_the_mean_still_adds_up(scores: Scores) -> None:
    mean = scores.mean()

    expected, parts = scores.remainder.mean(0, keepdim=True), scores.magnitude.mean(0, keepdim=True)
    assert _within(scores, mean.remainder, expected, parts + scores.target.abs().double().mean(0, keepdim=True))
    assert mean.values.shape[1] == 1
    assert mean.values.dtype == scores.values.dtype


@given(tables(), st.integers(1, 9), st.integers(0, 9))
def test_top_of_top_is_top(scores: Scores, more: int, less: int) -> None:
    twice, once = scores.top(less + more).top(less), scores.top(less)

    assert twice.keys == once.keys
    assert _within(scores, twice.values, once.values, scores.magnitude)


@settings(max_examples=50)
@given(tables())
def test_loading_gives_back_what_was_saved(scores: Scores) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = Scores.load(scores.save(Path(folder) / "run"))

        for name in ("values", "target"):
            before, after = getattr(scores, name), getattr(loaded, name)
            assert after.dtype == before.dtype
            assert torch.equal(after, before)
        assert loaded.keys == scores.keys
        assert loaded.keys.runs == scores.keys.runs
        for name in ("axes", "target_labels", "tokens", "positions", "provenance"):
            assert getattr(loaded, name) == getattr(scores, name)


def _three(numbers: list[float], **changes: object) -> Scores:
    keys = Keys([Run(Node("mlp", 0)), Run(Node("mlp", 1)), Run(Node("mlp", 2))])
    column = torch.tensor(numbers)[:, None]
    scores = Scores(keys, column, column.sum(0), ("node", "example"), ((" x",),), (("a", "b"),), ((1,),))
    return replace(scores, **changes)


def test_top_keeps_the_strongest_first_and_closes_with_the_rest() -> None:
    top = _three([1.0, -5.0, 2.5]).top(1)

    assert [str(key) for key in top.keys] == ["1.mlp", "rest"]
    assert top.values.tolist() == [[-5.0], [3.5]]


def test_signed_top_puts_the_most_positive_first() -> None:
    assert [str(key) for key in _three([1.0, -5.0, 2.5]).top(2, "signed").keys] == ["2.mlp", "0.mlp", "rest"]


def test_top_of_everything_needs_no_rest() -> None:
    assert [str(key) for key in _three([1.0, -5.0, 2.5]).top(3).keys] == ["1.mlp", "2.mlp", "0.mlp"]


def test_equal_rows_stay_in_order() -> None:
    assert [str(key) for key in _three([1.0, -1.0, 1.0]).top(3).keys] == ["0.mlp", "1.mlp", "2.mlp"]


def test_a_negative_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"top\(-1\)"):
        _three([1.0, 2.0, 3.0]).top(-1)


def test_the_mean_keeps_what_examples_share_and_drops_the_rest() -> None:
    values = torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 1.0]])
    both = {"tokens": (("a", "b"), ("a", "c")), "positions": ((1,), (1,)), "provenance": {"seed": 3}}
    scores = _three([0.0] * 3, values=values, target=values.sum(0), target_labels=((" x",), (" y",)), **both)

    mean = scores.mean()

    assert mean.values.tolist() == [[2.0], [2.0], [0.5]]
    assert (mean.target_labels, mean.tokens, mean.positions) == ((("mean of 2 targets",),), ((),), ((1,),))
    assert mean.provenance == {"seed": 3, "mean_over_examples": 2}
    assert mean.mean().provenance == mean.provenance


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": torch.zeros(4, 1)}, r"3 keys for values of shape \(4, 1\)"),
        ({"target_labels": ((" x",), (" y",))}, "target_labels describe 2 examples, and values have 1"),
        ({"target_labels": ((" x", " y"),)}, r"target_labels\[0\] has 2 entries, .* call for 1"),
        ({"tokens": ()}, "tokens describe 0 examples"),
        ({"positions": ((1, 2),)}, r"positions\[0\] has 2 entries, .* call for 1 or 0"),
    ],
)
def test_fields_that_do_not_belong_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _three([1.0, 2.0, 3.0], **changes)


def test_json_says_everything(make: Callable[..., Scores]) -> None:
    scores = make(examples=2, targets=2)

    said = json.loads(json.dumps(scores.to_json()))

    assert said["keys"] == [str(key) for key in scores.keys]
    assert torch.equal(torch.tensor(said["values"]), scores.values)
    assert torch.equal(torch.tensor(said["target"]), scores.target)
    assert said["remainder"] == scores.remainder.tolist()
    assert said["axes"] == ["node", "example", "target"]
    assert said["target_labels"] == [[" word0", " word1"]] * 2
    assert said["positions"] == [[5], [5]]
    assert said["tokens"][0][2] == " capital"
    assert said["provenance"] == {"method": "direct"}


def test_another_kind_of_result_is_no_scores(tmp_path: Path) -> None:
    store.write(tmp_path / "run", "dictionary", {}, {})

    with pytest.raises(FileFormatError, match="kind 'dictionary', and 'scores' is wanted"):
        Scores.load(tmp_path / "run")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda meta, tensors: meta.pop("runs"),
        lambda meta, tensors: meta["runs"][0].update(node="0.nothing"),
        lambda meta, tensors: meta.update(axes=["node"]),
        lambda meta, tensors: tensors.pop("target"),
        lambda meta, tensors: tensors.update(extra=torch.zeros(1)),
    ],
)
def test_a_description_that_is_not_of_scores_is_refused(
    tmp_path: Path, make: Callable[..., Scores], spoil: Callable[..., object]
) -> None:
    record = store.read(make().save(tmp_path / "run"))
    spoil(record.meta, record.tensors)
    store.write(tmp_path / "run", "scores", record.meta, record.tensors)

    with pytest.raises(FileFormatError, match="does not describe scores"):
        Scores.load(tmp_path / "run")


def test_scores_of_version_1_stay_readable() -> None:
    scores = Scores.load(Path(__file__).parent / "data" / "scores-v1")

    assert [str(key) for key in scores.keys] == [
        "embed",
        "0.attn.head:0~0",
        "0.attn.head:0~1",
        "0.moe.neuron:1/0",
        "0.mlp",
    ]
    assert scores.values.tolist() == [[[1.0, 2.0]], [[0.5, 0.0]], [[-1.5, 0.25]], [[0.0, 0.0]], [[2.0, -2.0]]]
    assert scores.target.tolist() == [[2.0, 0.25]]
    assert scores.target_labels == ((" Austin", "' Mary' − ' John'"),)
    assert (scores.tokens, scores.positions) == ((("The", " capital"),), ((1,),))
    assert scores.provenance == {"method": "direct", "model": "demo"}


def test_results_open_without_transformers_pandas_or_matplotlib(tmp_path: Path, make: Callable[..., Scores]) -> None:
    path = make().save(tmp_path / "run")
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('transformers', 'pandas', 'matplotlib')))\n"
        "from whence.results.scores import Scores\n"
        "import rich\n"
        f"scores = Scores.load({str(path)!r})\n"
        "rich.print(scores.table())\n"
        "for call in (scores.plot, scores.to_pandas):\n"
        "    try: call()\n"
        "    except ImportError as error: print(error)\n"
    )
    environment = {"PYTHONPATH": str(Path(whence.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)

    assert done.returncode == 0, done.stderr
    assert "Σ of the parts" in done.stdout
    assert "pip install 'whence[plot]'" in done.stdout
    assert "pip install pandas" in done.stdout
