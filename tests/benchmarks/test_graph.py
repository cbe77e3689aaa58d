import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import graph_gpu
import peer
from graph_bound import GEMM_FLOPS, flops
from graph_model import BOS, TINY, Shape, load_setup, mlp_inputs, save_setup
from graph_table import OURS, THEIRS, Measured, Row, Size, bounds, goals, report

BENCHMARKS = Path(peer.__file__).parent


# ------------------------------------------------------------ the whole
def test_a_smoke_run_measures_whence_in_both_sections_and_says_that_the_peer_was_left_out(tmp_path: Path) -> None:
    out = tmp_path / "results" / "graph.json"
    command = [sys.executable, str(BENCHMARKS / "graph.py"), "--smoke", "--repeats", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("circuit-tracer was not measured: it was left out.\n")
    measured = json.loads(out.read_text())
    (size,) = measured["sizes"]
    (row,) = size["rows"]
    assert row["row"]["side"] == "whence"
    assert len(row["runs"]) == len(row["products"]) == 2
    assert all(run["cpu"] > 0 and run["result"] > 0 for run in row["runs"])
    (gpu,) = measured["gpu"]
    assert min(*gpu["seconds"], gpu["bound"]) > 0
    assert gpu["nodes"] == 10 < gpu["active"]


# ------------------------------------------------------------ the model
def test_a_setup_has_as_many_active_features_as_its_shape_asks_for_and_none_at_the_first_position(
    tmp_path: Path,
) -> None:
    from transformers import LlamaForCausalLM

    made = save_setup(TINY, tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert made.ids[0] == BOS
    assert made.counts.sum(1).tolist() == [TINY.active * (TINY.length - 1)] * TINY.layers
    for layer, x in enumerate(mlp_inputs(model, made.ids)):
        tensors = load_file(tmp_path / "transcoders" / f"layer_{layer}.safetensors")
        active = x @ tensors["W_enc"].T + tensors["b_enc"] > tensors["activation_function.threshold"]
        active[0] = False
        assert torch.equal(active.sum(1), made.counts[layer])
    again = load_setup(tmp_path)
    assert all(torch.equal(getattr(again, name), getattr(made, name)) for name in ("ids", "targets", "counts"))


# ------------------------------------------------------------ the bound
def counted(shape: Shape, layer: int, position: int, active: torch.Tensor, *, logit: bool) -> tuple[int, int]:
    """Operations of one direction's way back, one product of a row at a time: transport, and dots."""
    d, queries, keys = shape.d_model, shape.heads * shape.d_head, shape.key_heads * shape.d_head
    rows, transport = [position], 0
    dots = int(active[layer, position]) + 1 if logit else 0
    for below in range(layer, -1, -1):
        transport += sum(2 * d * queries for _ in rows)
        transport += sum(2 * queries for query in rows for _ in range(query + 1))
        rows = list(range(position + 1))
        transport += sum(2 * d * keys for _ in rows)
        dots += sum(int(active[below - 1, row]) + 1 if below else 1 for row in rows)
    return transport, 2 * d * dots


@pytest.mark.parametrize("key_heads", [1, 4])
def test_the_bound_counts_every_product_of_a_row_on_its_way_back(key_heads: int) -> None:
    shape = Shape(3, 8, 4, key_heads, 2, 16, features=9, vocab=11, length=4, active=2, targets=3)
    active = torch.tensor([[0, 2, 1, 3], [0, 0, 4, 2], [0, 1, 2, 3]])
    nodes = active // 2
    wanted = [
        tuple(int(nodes[layer, at]) * part for part in counted(shape, layer, at, active, logit=False))
        for layer in range(3)
        for at in range(4)
    ]
    wanted += [counted(shape, 2, 3, active, logit=True)] * shape.targets
    found = flops(shape, nodes, active)
    assert (found["transport"], found["dots"]) == tuple(sum(parts) for parts in zip(*wanted, strict=True))


# ------------------------------------------------------------ the peer
def test_without_an_environment_or_a_path_the_peer_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "ROOT", tmp_path)
    reason = peer.chosen("circuit-tracer", None)
    assert (
        reason == "circuit-tracer was not measured: no --peer was given, and no earlier run left an environment for it."
    )


def test_an_interpreter_is_taken_if_it_has_the_peer_and_is_a_sentence_otherwise() -> None:
    python = Path(sys.executable)
    assert peer.chosen("json", python) == python
    reason = peer.chosen("circuit-tracer", python)
    assert isinstance(reason, str)
    assert "cannot import it (ModuleNotFoundError" in reason


def test_an_earlier_environment_serves_until_another_checkout_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "ROOT", tmp_path)
    folder, mine, other = (tmp_path / name for name in ("benchmarks/.peer-circuit-tracer", "mine", "other"))
    for made in (folder, mine, other):
        made.mkdir(parents=True)
    (folder / ".installed").write_text(str(mine))
    assert peer.chosen("circuit-tracer", None) == folder / "bin" / "python"
    assert peer.chosen("circuit-tracer", mine) == folder / "bin" / "python"
    assert isinstance(peer.set_up("circuit-tracer", command=["no-such-command"], source=other), str)


# ------------------------------------------------------------ the table
def measured(row: Row, cpu: float, extra: int) -> Measured:
    noise = (1.0, 9.0, 0.5)
    runs = [{"cpu": cpu * factor, "extra": extra, "result": 3_000_000} for factor in noise]
    return Measured(row, runs, [{"cpu": 0.25 * factor} for factor in noise])


def size() -> Size:
    costs = zip(THEIRS, (13.0, 12.0, 9.0, 18.0, 40.0), (50, 60, 80, 100, 200), strict=True)
    rows = [measured(OURS, 2.0, 20_000_000), *(measured(row, cpu, mb * 1_000_000) for row, cpu, mb in costs)]
    rows[0].difference, rows[0].largest = 2e-6, 5.0
    return Size("a size", rows, 7, {"transport": 3 * GEMM_FLOPS, "dots": GEMM_FLOPS})


def test_the_table_holds_medians_and_ratios_to_the_bound_at_the_rate_of_the_same_turn_and_to_whence() -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report([size()])]
    assert lines[2][0] == "**a size: 7 features**"
    assert lines[3] == ["whence", "2", "2.00", "20", "3", "", "", "2e-06 of 5"]
    assert lines[-1][1:7] == ["40", "40.00", "200", "3", "20.0", "10.0"]


def test_the_goals_name_the_peers_best_and_its_default() -> None:
    lines = goals([size()])
    assert lines == [
        "a size: 2.00 × the bound (goal: at most 1.5).",
        "a size: 4.5 × faster than its best (batch 32; goal: 4), 20.0 × its default (goal: 15).",
        "a size: 1/4.0 of its memory (goal: 1/3).",
    ]


def test_a_failing_row_shows_its_error_and_takes_no_part_in_the_goals() -> None:
    broken = size()
    broken.rows[0] = Measured(OURS, [{"error": "ValueError: no"}], [{"cpu": 1.0}])
    assert "ValueError: no" in report([broken])[3]
    assert goals([broken]) == []


def test_the_bound_is_told_in_its_two_parts() -> None:
    (line,) = bounds([size()])
    assert "51.54 GFLOP of transport and 17.18 of products" in line


def test_without_a_gpu_its_section_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert graph_gpu.report(graph_gpu.timed(smoke=False, repeats=3)) == [
        "Gemma 2 2B's shape was not measured: there is no GPU."
    ]


def test_a_gpus_line_has_its_bound_memory_and_goal() -> None:
    one = graph_gpu.Timed(64, 32760, 7500, [0.5, 0.75, 9.0], 2_000_000, 0.25, "a GPU")
    assert graph_gpu.report([one]) == [
        "a GPU, 64 tokens, 7500 of 32760 features: 0.75 s, bound 0.25 s, 2 extra MB (goal: 1 s on an H200)."
    ]
