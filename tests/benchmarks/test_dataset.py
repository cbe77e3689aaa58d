import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dataset
from dataset_agreement import agreement
from dataset_bound import bound_flops, multiply_adds, reading_pairs
from dataset_embeddings import by_loop, by_scatter
from dataset_environment import environment
from dataset_merge import Merges
from dataset_model import PLACES, TINY, Shape, load_setup, save_setup
from dataset_table import EMBEDDINGS, OURS, ROWS, Size, goals, report

PROGRAM = dataset.__file__


def runs(cpu: float, extra: float = 11e6) -> list[dict[str, float]]:
    return [{"cpu": cpu * noise, "extra": extra, "result": 1e6} for noise in (0.5, 1.0, 9.0)]


def test_a_smoke_run_measures_and_plots_whence_and_says_that_the_peer_was_left_out(tmp_path: Path) -> None:
    out = tmp_path / "results" / "dataset.json"
    command = [sys.executable, PROGRAM, "--smoke", "--repeats", "1", "--out", str(out), "--scaling", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("spd was not measured: it was left out.\n")
    found = json.loads(out.read_text())
    (size,) = found["sizes"]
    assert size["runs"][OURS].keys() == {row.case for row in (*ROWS, *EMBEDDINGS) if row.worker == OURS} | {"gemm"}
    assert all(run["cpu"] > 0 for measured in size["runs"][OURS].values() for run in measured)
    assert found["merges"]["whence"][0]["cpu"] > 0
    assert (tmp_path / "dataset_scaling_layers.png").read_bytes().startswith(b"\x89PNG")


def test_a_saved_setup_is_a_model_that_is_the_product_of_its_components(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = save_setup(TINY, tmp_path)
    found = load_setup(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
    with torch.no_grad():
        found.check(model(input_ids=found.ids).logits)
    for site in TINY.sites:
        layer, _, name = site.partition(".")
        weight = model.get_submodule(f"model.layers.{layer}.{PLACES[name]}").weight
        assert torch.equal(weight, (found.V[site] @ found.U[site]).T)
        assert torch.equal(found.importances[site], made.importances[site])


def test_importances_have_the_density_that_is_asked_for(tmp_path: Path) -> None:
    shape = Shape(2, 64, 0.04, d_model=16, heads=2, hidden=24, vocab=31)
    given = torch.cat([one.flatten() for one in save_setup(shape, tmp_path).importances.values()])
    assert float((given > 0).float().mean()) == pytest.approx(0.04, rel=0.05)
    assert 0 <= float(given.min()) <= float(given.max()) <= 1


def test_a_side_that_computes_another_model_is_refused(tmp_path: Path) -> None:
    setup = save_setup(TINY, tmp_path)
    setup.check(setup.logits + 1e-6)
    with pytest.raises(ValueError, match="away from those of the saved model"):
        setup.check(1.01 * setup.logits)


def test_embeddings_by_token_are_the_same_in_one_indexed_sum_and_element_by_element(tmp_path: Path) -> None:
    setup = save_setup(TINY, tmp_path)
    assert torch.allclose(by_scatter(setup), by_loop(setup), rtol=1e-6)


def test_pairs_along_the_stream_are_those_of_readers_and_earlier_writers() -> None:
    def slow(layers: int) -> int:
        order = [(layer, name) for layer in range(layers) for name in PLACES]
        readers = [(*site, place) for place, site in enumerate(order) if site[1] not in ("attn.o", "glu.down")]
        writers = [(place, site) for place, site in enumerate(order) if site[1] in ("attn.o", "glu.down")]
        return sum(written < place for *_, place in readers for written, _ in writers)

    assert [reading_pairs(layers) for layers in (1, 2, 4)] == [slow(layers) for layers in (1, 2, 4)]


def test_the_bound_grows_with_rows_and_live_norms_only_where_they_matter() -> None:
    shape = Shape(2, 64, 0.04)
    held, live = (multiply_adds(shape, 0.04, live=live) for live in (False, True))
    assert {kind for kind in held if held[kind] != live[kind]} == {"stream"}
    dense = multiply_adds(shape, 1.0, live=False)
    assert {kind for kind in held if held[kind] != dense[kind]} == {"attention", "pointwise"}
    assert dense["pointwise"] == 2 * shape.tokens * shape.components * 2 * shape.hidden * shape.components
    assert bound_flops(shape, 1.0, live=False) == 2 * sum(dense.values())


def test_agreement_is_a_share_of_the_pair_and_leaves_rounding_out() -> None:
    theirs = {"attr 0.attn.o 0.attn.v": torch.tensor([[2.0, -4.0]]), "attr 0.attn.q embed": torch.tensor([[1e-6]])}
    ours = {"attr 0.attn.o 0.attn.v": torch.tensor([[2.0, -4.4]]), "attr 0.attn.q embed": torch.tensor([[9e-6]])}
    (line,) = agreement(ours, theirs)
    assert line.startswith("attr: 1 pairs of 2 ")
    assert "1.0e-01" in line
    assert "0.attn.v to 0.attn.o" in line


def test_the_table_holds_medians_ratios_and_errors_and_goals_say_how_much_faster() -> None:
    size = Size("C128 sparse", Shape(4, 128, 0.04))
    size.runs[OURS] = {"as the peer": runs(2.0), "weighted": [{"error": "ValueError: no"}], "gemm": runs(0.2)}
    size.runs["bfloat16"] = {"batch": runs(30.0, 33e6)}
    lines = report([size])
    assert lines[3].startswith("| whence, as the peer | 2 | ")
    assert lines[3].endswith(" | 11 | 1 |  |  |")
    assert lines[4] == "| whence, weighted, norms held | ValueError: no |  |  |  |  |  |"
    assert lines[5] == "| spd, bfloat16 | 30 |  | 33 | 1 | 15.0 | 3.0 |"
    (line,) = goals(size)
    assert "15.0 × spd, bfloat16 (goal: 25 ×)" in line


def test_merging_is_beside_one_block_and_the_merged_file() -> None:
    merges = Merges(10, 100, {"whence": runs(1.0, 24e3), "spd": [{"error": "OSError: full"}]})
    lines = merges.report()
    assert lines[2] == "| whence | 1.00 | 1 | 0 | 3.0 | 0.02 |"
    assert lines[3] == "| spd | OSError: full | | | | |"


def test_a_peer_that_is_not_given_or_no_checkout_is_a_sentence(tmp_path: Path) -> None:
    assert environment(None) == "spd was not measured: no --spd was given."
    assert str(tmp_path) in str(environment(tmp_path))
