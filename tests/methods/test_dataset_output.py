import subprocess
import sys
from pathlib import Path

import pytest
import torch

import whence
from dataset_runs import documents, given, model
from families import loaded
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS

# Opens a run where no model can be loaded.
OPEN = """
import sys
sys.modules["transformers"] = None
import whence
found = whence.DatasetAttributions.load(sys.argv[1])
print(found.tokens, found.top_sources("output:7", 1)[0].key, found.top_sources("output:5", 1, metric="rms")[0].key)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetAttributions]:
    """A folder of runs, and its result, with one token named."""
    out = tmp_path_factory.mktemp("output")
    return out, whence.dataset_attributions(
        model(), given().parameters, documents(), out=out, batch_size=4, sequence_length=6, output_tokens=[5]
    )


def test_a_named_token_has_every_metric_and_others_the_signed_one(run: tuple[Path, DatasetAttributions]) -> None:
    _, result = run
    for metric in (*METRICS, "rms"):
        assert len(result.top_sources("output:5", 3, metric=metric)) == 3
    assert len(result.top_sources("output:7", 3)) == 3
    for metric in (*METRICS[1:], "rms"):
        with pytest.raises(ValueError, match="output_tokens"):
            result.top_sources("output:7", 3, metric=metric)


@pytest.mark.parametrize("name", ["granite", "cohere", "gpt2", "gemma2"])
def test_a_token_made_of_the_stream_has_the_numbers_it_has_when_named(name: str, tmp_path: Path) -> None:
    """Scaled, capped and tied unembeddings: kept beside the run, and from the model."""
    found = [
        whence.dataset_attributions(
            loaded(name), "attn", documents(4), out=tmp_path / str(len(tokens)), sequence_length=6, output_tokens=tokens
        )
        for tokens in ([5], [])
    ]
    (run,) = (tmp_path / "0").iterdir()
    found.append(DatasetAttributions.load(run, model=loaded(name)))
    named, *made = (
        {entry.key: entry.value for entry in one.top_sources("output:5", 500, sign="both")} for one in found
    )
    size = max(map(abs, named.values()))
    for one in made:
        assert set(named) - set(one) <= {key for key in named if str(key) == "bias"}
        for key, value in one.items():
            assert value == pytest.approx(named[key], abs=1e-5 * size), key


def test_a_result_opens_where_no_model_can_be_loaded(run: tuple[Path, DatasetAttributions]) -> None:
    out, result = run
    done = subprocess.run([sys.executable, "-c", OPEN, str(out)], capture_output=True, text=True, check=True)
    keys = (
        result.top_sources(key, 1, metric=metric)[0].key for key, metric in (("output:7", "attr"), ("output:5", "rms"))
    )
    assert done.stdout.split() == [str(result.tokens), *map(str, keys)]


def test_padding_adds_nothing(tmp_path: Path) -> None:
    options = {"sequence_length": 6, "pack": False, "seed": None}
    found = [
        whence.dataset_attributions(
            model(),
            given().parameters,
            documents(6),
            out=tmp_path / str(size),
            batch_size=size,
            fold=6 // size,
            **options,
        ).store
        for size in (1, 6)
    ]
    alone, together = found
    assert alone.header.tokens == together.header.tokens == sum(map(len, documents(6)))
    for target, source in alone.header.pairs:
        for metric in METRICS[:1] if target == "output.stream" else METRICS:
            one, other = (store.block(target, source, metric) for store in found)
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max())), (target, source, metric)
