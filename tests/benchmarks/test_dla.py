import json
import subprocess
import sys
from pathlib import Path

import pytest

import peer
from dla import GROUPS, group
from dla_table import Measured, forward, goals, report

BENCHMARKS = Path(peer.__file__).parent


def test_a_smoke_run_measures_every_row_of_whence_and_says_that_the_peer_was_left_out(tmp_path: Path) -> None:
    out = tmp_path / "results" / "dla.json"
    command = [sys.executable, str(BENCHMARKS / "dla.py"), "--smoke", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("transformer-lens was not measured: it was left out.\n")
    measured = json.loads(out.read_text())
    ours = {(title, row.label) for title, rows in GROUPS.items() for row in rows if row.side == "whence"}
    assert {(row["group"], row["case"]) for row in measured["rows"]} == ours
    assert all(run["cpu"] > 0 and run["result"] > 0 for row in measured["rows"] for run in row["runs"])


def test_a_peer_without_an_environment_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "ROOT", tmp_path)
    reason = peer.set_up("transformer-lens", command=["no-such-command"])
    assert isinstance(reason, str)
    assert reason.startswith("transformer-lens was not measured: its environment could not be made")


def measured(cpu: float, extra: int, result: int) -> list[dict[str, float]]:
    return [{"cpu": cpu * noise, "extra": extra, "result": result} for noise in (1.0, 9.0, 0.5)]


def test_the_table_holds_medians_ratios_to_the_same_kernel_and_to_whence() -> None:
    rows = group("head", "all")
    costs = {"sdpa": (2.0, 50), "eager": (4.0, 60), "ours": (3.0, 30), "theirs": (12.0, 110)}
    plain, ours, theirs = rows[:2], rows[2], rows[-1]
    found = [Measured(row, measured(*costs[row.attention], 10)) for row in plain]
    found += [Measured(ours, measured(*costs["ours"], 10), 1e-7), Measured(theirs, measured(*costs["theirs"], 10))]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report({"heads": found})]
    assert lines[-2][1:3] == ["3.00", "1.50"]
    assert lines[-2][-1] == "1e-07"
    assert lines[-1][1:3] == ["12.00", "3.00"]
    assert lines[-1][5:7] == ["4.0", "5.0"]


def test_a_failing_row_shows_its_error() -> None:
    line = report({"one": [Measured(forward("sdpa"), [{"error": "ValueError: no"}])]})[-1]
    assert "ValueError: no" in line


def test_the_goals_name_the_ratio_that_was_measured() -> None:
    title = "heads and neurons, all positions"
    found = {title: [Measured(row, measured(2.0 if row.side == "peer" else 1.0, 100, 20)) for row in GROUPS[title]]}
    lines = goals(found)
    assert "1.00 × (sdpa)" in lines[0]
    assert any(line.endswith("1.000 of TransformerLens, best.") for line in lines)
