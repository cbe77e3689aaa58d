from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import whence
from dataset_parts import random_parts
from dataset_runs import documents, gaps
from families import loaded
from whence.components.head_reads import HeadReads
from whence.components.parameter_files import load_components
from whence.demo import components_path, dictionary_path, model_path
from whence.demo.corpus import demo_corpus
from whence.methods.dataset_examples import EdgeExample, top_examples
from whence.model.model import Model
from whence.results.dataset import DatasetAttributions

GAP = 1e-5  # of the parts' magnitudes, in float32
EVERY = 10**6


@cache
def demo() -> Model:
    return Model.from_pretrained(model_path())


def run(out: Path, components: Any, model: Model | None = None, **options: Any) -> DatasetAttributions:
    """Two windows of a few rows."""
    data = [*islice(demo_corpus(documents=6), 6)] if model is None else documents(5)
    settings = {"batch_size": 3, "fold": 1, "sequence_length": 12, "pack": False, **options}
    return whence.dataset_attributions(model or demo(), components, data, out=out, **settings)


def agrees(out: Path, result: DatasetAttributions, components: Any, source: str, target: str) -> EdgeExample:
    """The examples of an edge sum to it; the strongest."""
    found = top_examples(out, demo(), components, source, target, k=EVERY)
    raw = result.between(source, target, normalise="none").value
    size = sum(abs(one.value) for one in found)
    assert size > 0
    assert sum(one.value for one in found) == pytest.approx(raw, abs=1e-4 * size)
    return found[0]


def test_transcoders_and_heads(tmp_path: Path) -> None:
    components = [whence.load_dictionary(dictionary_path("transcoders")), "attn.head"]
    result = run(tmp_path, components, output_tokens=[" sings"])
    found = gaps(result.store)
    assert set(found) == {*(f"{layer}.mlp.feature" for layer in range(4)), "output", "output.stream"}
    assert max(found.values()) <= GAP
    token = f"output:{demo().token_id(' sings')}"
    assert result.has_source("0.attn.head:1")
    assert not result.has_target("0.attn.head:1")
    example = agrees(tmp_path, result, components, "0.attn.head:1", token)
    assert example.tokens[example.target_position].strip()


def test_features_of_the_stream_cut_it(tmp_path: Path) -> None:
    components = whence.load_dictionary(dictionary_path("sae_resid_post"))
    result = run(tmp_path, components, metrics=("attr",), batches=1)
    pairs = set(result.header.pairs)
    assert {s for t, s in pairs if t == "1.resid_post.feature"} >= {"0.resid_post.feature", "0.resid_post.error"}
    assert not any(s.startswith("0.") or s == "embed" for t, s in pairs if t == "2.resid_post.feature")
    assert all(value <= GAP for value in gaps(result.store).values())
    target = next(key for key in result.top_targets("0.resid_post.error", 1).keys)
    agrees(tmp_path, result, components, "0.resid_post.error", str(target))


def test_neurons_and_whole_attentions(tmp_path: Path) -> None:
    components = ["mlp.neuron", "attn"]
    result = run(tmp_path, components, metrics=("attr",))
    found = gaps(result.store)
    assert {"0.mlp.neuron.gate", "0.mlp.neuron.up", "output.stream"} <= set(found)
    assert max(found.values()) <= GAP
    agrees(tmp_path, result, components, "0.attn", "1.mlp.neuron:7.up")


def test_heads_are_targets_through_covectors(tmp_path: Path) -> None:
    width = demo().hf.config.hidden_size // demo().hf.config.num_attention_heads
    reads = HeadReads(
        {f"2.attn.head:1.{end}": torch.ones(width) for end in "qkv"} | {"2.attn.head:0.q": -torch.ones(width)}
    )
    components = ["attn.head", "mlp", reads]
    result = run(tmp_path, components)
    assert result.components("2.attn.head.q").ids.tolist() == [0, 1]
    found = gaps(result.store)
    assert set(found) == {"2.attn.head.q", "2.attn.head.k", "2.attn.head.v", "output.stream"}
    assert max(found.values()) <= GAP
    agrees(tmp_path, result, components, "0.mlp", "2.attn.head:1.k")


def test_the_parameter_components_that_ship(tmp_path: Path) -> None:
    components = load_components(components_path())
    result = run(tmp_path, components, weighting="target", metrics=("attr",), batches=1, sequence_length=8)
    assert max(gaps(result.store).values()) <= GAP
    assert len(result.header.targets) == 4 * 7 + 1


def test_one_matrix_for_queries_keys_and_values(tmp_path: Path) -> None:
    model = loaded("gpt2")
    result = run(tmp_path, random_parts(model, 2, ("attn_fused.qkv", "attn_fused.o", "mlp.up", "mlp.down")), model)
    held = {target for (target, _), sums in result.header.pairs.items() if sums}
    assert held == {t for t in result.header.targets if t.endswith(("qkv", "up", "stream"))}
    assert max(gaps(result.store).values()) <= GAP
    assert result.header.sources["bias"].quantities["importance"].tolist() == [result.tokens]


def test_a_model_in_bfloat16(tmp_path: Path) -> None:
    model = loaded("llama", torch.bfloat16)
    result = run(tmp_path, random_parts(model, 2, ("attn.q", "attn.v", "attn.o", "glu.down")), model, metrics=("attr",))
    assert result.settings["model"]["dtype"] == "bfloat16"
    assert all(torch.isfinite(result.store.block(*pair, "attr")).all() for pair in result.header.pairs)
    assert result.provenance["shards"][0]["provenance"]["worst_gap"] <= 0.1
