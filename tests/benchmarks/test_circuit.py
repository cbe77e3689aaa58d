import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXForCausalLM

import circuit_environment
import peer
from circuit_agreement import edges_agree, effects_agree
from circuit_bound import edge_flops, effect_flops
from circuit_effects import attribution, encode, kept_counts, run
from circuit_model import TINY, Setup, Shape, load_dictionaries, load_setup, save_setup
from circuit_table import DEFAULT, OURS, PEERS, Size, bounds, counts, goals, report
from circuit_whence import places
from graph_bound import GEMM_FLOPS
from whence.results.keys import Node
from whence.results.nodes import NodeTable

BENCHMARKS = Path(peer.__file__).parent


# ------------------------------------------------------------ the whole
def test_a_smoke_run_measures_every_row_of_whence_and_says_that_the_peer_was_left_out(tmp_path: Path) -> None:
    out = tmp_path / "results" / "circuit.json"
    command = [sys.executable, str(BENCHMARKS / "circuit.py"), "--smoke", "--repeats", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("feature-circuits was not measured: it was left out.\n")
    (size,) = json.loads(out.read_text())["sizes"]
    assert list(size["runs"]) == [OURS]
    cases = size["runs"][OURS]
    assert {"effects midpoint", "circuit gradient 8", "circuit midpoint 8", "gemm"} <= cases.keys()
    assert all(len(runs) == 2 and all(one["cpu"] > 0 and one["result"] > 0 for one in runs) for runs in cases.values())


# ------------------------------------------------------------ the model
def test_the_thresholds_keep_so_many_nodes_a_site_and_the_share_of_active_features_is_about_the_asked_one(
    tmp_path: Path,
) -> None:
    setup, effects = save_setup(TINY, tmp_path)
    for kept, limit in setup.thresholds.items():
        found = kept_counts(effects, limit)
        assert sum(int(one.sum()) for one in found.values()) == kept * len(TINY.sites)
        assert all(one.shape == (TINY.pairs, TINY.length) for one in found.values())
    model = GPTNeoXForCausalLM.from_pretrained(tmp_path / "model").eval()
    saes, given = load_dictionaries(tmp_path, TINY), dict[str, Tensor]()
    with torch.no_grad():
        logits = run(model, setup.clean, lambda site, x: given.update({site: x}))
    torch.testing.assert_close(logits[:, -1], setup.logits)
    assert list(given) == TINY.sites
    for site, x in given.items():
        assert float((encode(saes[site], x) > 0).double().mean()) == pytest.approx(TINY.active, rel=0.06)
    again = load_setup(tmp_path)
    assert (again.shape, again.thresholds) == (setup.shape, setup.thresholds)
    for name in ("clean", "patch", "clean_answers", "patch_answers", "logits"):
        assert torch.equal(getattr(again, name), getattr(setup, name))


@pytest.mark.parametrize("site", ["embed", "attn_0", "mlp_0", "resid_0", "attn_1"])
def test_effects_are_the_metrics_slope_when_one_node_moves(tmp_path: Path, site: str) -> None:
    setup, _ = save_setup(TINY, tmp_path)
    model = GPTNeoXForCausalLM.from_pretrained(tmp_path / "model").eval().requires_grad_(requires_grad=False).double()
    stored = load_dictionaries(tmp_path, TINY)
    saes = {name: {part: one.double() for part, one in tensors.items()} for name, tensors in stored.items()}
    effects = attribution(model, saes, (setup.clean, setup.patch), setup.metric)[site]
    states: list[dict[str, Tensor]] = [{}, {}]
    for ids, state in zip((setup.clean, setup.patch), states, strict=True):
        run(model, ids, lambda name, x, state=state: state.update({name: x.clone()}))
    clean, patch = (state[site] for state in states)
    change = encode(saes[site], patch) - encode(saes[site], clean)
    moves = change[..., None] * saes[site]["decoder.weight"].T  # [pair, position, feature, d_model]
    moves = torch.cat([moves, (patch - clean - moves.sum(2))[:, :, None]], dim=2)
    for pair, position, unit in largest(effects, 5):
        ends = [
            metric_when(model, setup, site, (pair, position), h * moves[pair, position, unit]) for h in (1e-5, -1e-5)
        ]
        assert float((ends[0] - ends[1])[pair] / 2e-5) == pytest.approx(float(effects[pair, position, unit]), rel=1e-6)


def largest(effects: Tensor, count: int) -> list[list[int]]:
    """Where the largest effects of features are, and of errors."""
    features = effects[..., :-1].abs()
    errors = torch.zeros_like(effects)
    errors[..., -1] = effects[..., -1].abs()
    found = [
        torch.stack(torch.unravel_index(one.flatten().topk(count).indices, one.shape), 1) for one in (features, errors)
    ]
    return torch.cat(found).tolist()


def metric_when(model: GPTNeoXForCausalLM, setup: Setup, site: str, at: tuple[int, int], move: Tensor) -> Tensor:
    """The metric of every pair when what a site gives at one place moves."""
    return setup.metric(run(model, setup.clean, lambda name, x: x[at].add_(move) if name == site else None))


# ------------------------------------------------------------ the bound
def test_edges_are_bounded_by_every_row_and_every_pair_of_nodes_that_can_have_an_edge() -> None:
    shape = Shape(2, 8, 2, features=9, vocab=11, kept=(2,), length=3, pairs=2)
    generator = torch.Generator().manual_seed(0)
    kept = {site: torch.randint(0, 3, (2, 3), generator=generator) for site in shape.sites}
    wanted, d, s = 0, shape.d_model, shape.length
    for layer in range(2):
        before = kept[f"resid_{layer - 1}" if layer else "embed"]
        for pair in range(2):
            for position in range(3):
                sources = [int(kept[f"{kind}_{layer}"][pair, position]) for kind in ("attn", "mlp")]
                sources.append(int(before[pair, position]))
                attn, mlp, resid = (int(kept[f"{kind}_{layer}"][pair, position]) for kind in ("attn", "mlp", "resid"))
                wanted += resid * sum(sources) * 2 * d + mlp * sources[2] * 2 * d
                wanted += attn * sum(int(before[pair, at]) for at in range(position + 1)) * 3 * 2 * d
                wanted += mlp * 2 * (2 * d * 4 * d + 2 * 4 * d * d)
                wanted += attn * (2 * d * d + 2 * 2 * s * d + 3 * 2 * d * d) + sources[2] * 3 * 2 * d * d
    assert edge_flops(shape, kept) == wanted


def test_effects_are_bounded_by_passes_through_what_lies_behind_each_site() -> None:
    shape = Shape(1, 8, 2, features=9, vocab=11, kept=(2,), length=3, pairs=2)
    block, logits = 2 * 12 * 64 * 3 + 4 * 8 * 9, 2 * 8 * 11
    directions = 5 * 2 * 8 * 9 * 3 * 4
    assert effect_flops(shape) == 2 * (3 * (block + logits) + directions)
    paths = 3 * 2 * 7 * logits + 2 * 7 * (block + logits)  # behind attn, mlp and resid nothing, behind embed the block
    assert effect_flops(shape, steps=7) == 2 * (2 * (block + logits) + paths + directions)


# ------------------------------------------------------------ agreement
def edges_of(rows: list[tuple[int, ...]], weights: list[float]) -> dict[str, Tensor]:
    table = torch.tensor(rows, dtype=torch.float32)
    return {"source": table[:, :4], "target": table[:, 4:], "weight": torch.tensor(weights)}


def test_edges_are_compared_where_the_source_is_a_feature_and_a_missing_one_counts_as_0() -> None:
    theirs = edges_of([(0, 0, 1, 3, 0, 1, 1, 2), (1, 0, 1, 3, 1, 1, 1, 2), (0, 0, 1, 9, 0, 1, 1, 2)], [0.5, 0.25, 0.0])
    ours = edges_of([(0, 0, 1, 9, 0, 1, 1, 2), (0, 0, 1, 3, 0, 1, 1, 2)], [2.0, 0.75])
    assert edges_agree(ours, theirs, 9) == [
        "Edges out of features: largest difference 2e-01 of 0.5, 2 compared, 2 of them not 0.",
        "Edges out of errors: the largest is 0 of the peer's, 2 of whence's.",
    ]


def test_effects_of_features_and_of_errors_are_compared_apart() -> None:
    theirs = {"embed": torch.tensor([1.0, 2.0, 8.0]), "attn_0": torch.tensor([0.0, -4.0, 0.0])}
    ours = {"embed": torch.tensor([1.0, 2.5, 8.0]), "attn_0": torch.tensor([0.0, -4.0, 0.25])}
    assert effects_agree(ours, theirs, 2) == [
        "Effects of features: largest difference 5e-01 of 4.",
        "Effects of errors: largest difference 2e-01 of 8.",
    ]


def test_nodes_of_whence_are_found_at_their_site_and_an_error_behind_the_features(tmp_path: Path) -> None:
    setup, _ = save_setup(TINY, tmp_path)
    nodes = ["0.embed.feature:7@1", "1.attn_out.feature:3@0", "0.mlp_out.error@2", "1.resid_post.error@3", "bias"]
    found = places(NodeTable.from_nodes(map(Node.parse, nodes)), setup)
    assert found.tolist() == [[0, 1, 7], [4, 0, 3], [2, 2, 40], [6, 3, 40], [-1, -1, -1]]


# ------------------------------------------------------------ the peer
def test_without_an_environment_or_a_checkout_the_peer_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_environment, "ROOT", tmp_path)
    reason = circuit_environment.environment(None)
    assert isinstance(reason, str)
    assert reason.endswith("no --peer was given, and no earlier run left an environment for it.")
    reason = circuit_environment.environment(tmp_path)
    assert isinstance(reason, str)
    assert "has no attribution.py" in reason


def test_an_environment_that_was_made_serves_any_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_environment, "ROOT", tmp_path)
    folder, mine = tmp_path / "benchmarks" / ".peer-feature-circuits", tmp_path / "mine"
    for made in (folder, mine):
        made.mkdir(parents=True)
    (mine / "attribution.py").touch()
    (folder / ".installed").write_text("elsewhere")
    assert circuit_environment.environment(mine) == (folder / "bin" / "python", mine)
    assert circuit_environment.environment(None) == (folder / "bin" / "python", mine)


# ------------------------------------------------------------ the table
def runs(cpu: float, extra: int) -> list[dict[str, float]]:
    return [{"cpu": cpu * noise, "extra": extra * 1_000_000, "result": 1} for noise in (1.0, 9.0, 0.5)]


def size() -> Size:
    found = Size("a size", (128,))
    costs = {"effects midpoint": (2.0, 40), "effects left": (2.0, 40), "effects gradient": (1.0, 20)}
    costs |= {"circuit gradient 128": (1.5, 30), "circuit midpoint 128": (4.0, 50), "gemm": (0.25, 1)}
    found.runs[OURS] = {case: runs(*cost) for case, cost in costs.items()}
    for factor, setting in zip((4, 1, 2), PEERS, strict=True):
        found.runs[setting.label] = {"effects": runs(10.0 * factor, 80), "edges 128": runs(50.0 * factor, 120)}
    return found


def test_edges_of_whence_are_a_circuit_less_its_effects_and_a_circuit_of_the_peer_is_the_sum() -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report([size()])]
    effects, edges, whole = (
        next(row for row, line in enumerate(lines) if title in line[0])
        for title in ("node effects", ": edges, 128 kept", "effects and edges")
    )
    assert lines[effects + 1] == ["whence, 10 midpoints", "2", "40", "", ""]
    assert lines[edges + 1] == ["whence", "0.5", "30", "", ""]
    assert lines[edges + 2] == ["feature-circuits, default", "200", "120", "400.0", "4.0"]
    assert lines[whole + 3] == ["feature-circuits, frozen", "60", "120", "15.0", "2.4"]


def test_the_goals_name_the_peers_default_and_its_best() -> None:
    assert goals([size()]) == [
        "a size, edges, 128 kept a site: 400 × faster than the default (goal: 200), 100 × than its best.",
        "a size, effects and edges, 128 kept a site: 60 × faster than the default (goal: 20), 15 × than its best.",
    ]


def test_a_failing_row_shows_its_error_and_one_without_runs_says_so() -> None:
    broken = size()
    broken.runs[DEFAULT]["edges 128"] = [{"error": "ValueError: no"}]
    del broken.runs[OURS]["circuit midpoint 128"]
    lines = report([broken])
    assert sum("ValueError: no" in line for line in lines) == 2
    assert sum("not measured" in line for line in lines) == 1
    assert goals([broken]) == [
        "a size, edges, 128 kept a site: – × faster than the default (goal: 200), 100 × than its best."
    ]


def test_bounds_are_told_in_operations_and_in_seconds_at_the_speed_of_matrix_products() -> None:
    found = size()
    found.flops["edges"] = 2 * GEMM_FLOPS
    assert bounds(found) == ["Bound, a size, edges: 34.4 GFLOP, 0.5 s at 69 GFLOP/s."]


def test_the_peers_backward_passes_count_every_kind_of_edge_of_a_node() -> None:
    found = size()
    found.counts[128] = {"embed": 100, "attn_0": 1, "mlp_0": 2, "resid_0": 4}
    assert counts(found) == ["a size, 128 kept a site: from 1 to 100; 15 backward passes of the peer."]
