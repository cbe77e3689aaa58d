import json
import subprocess
import sys
from pathlib import Path

import edge_attribution
from edge_attribution import OURS, table

PROGRAM = edge_attribution.__file__


def test_a_smoke_run_measures_whence_and_says_that_the_peer_was_left_out(tmp_path: Path) -> None:
    out = tmp_path / "results" / "edges.json"
    done = subprocess.run(
        [sys.executable, PROGRAM, "--smoke", "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("transformer-lens was not measured: it was left out.\n")
    (size,) = json.loads(out.read_text())["sizes"]
    assert size["runs"].keys() == {label for _, label in OURS}
    assert all(run["cpu"] > 0 for runs in size["runs"].values() for run in runs)


def test_the_table_holds_medians_and_ratios_and_errors() -> None:
    def runs(cpu: float, extra: float) -> list[dict[str, float]]:
        return [{"cpu": cpu * noise, "extra": extra, "result": 1e6} for noise in (0.5, 1.0, 9.0)]

    found = {label: runs(1.0 + place, 11e6) for place, (_, label) in enumerate(OURS)}
    found["TransformerLens, best"] = runs(6.0, 51e6)
    found["TransformerLens, default"] = [{"error": "ValueError: no"}]
    lines = table(found, 1e-6)
    assert lines[3] == "| whence | 2.00 | 2.0 | 11 |  |  |"
    assert lines[5] == "| TransformerLens, best | 6.00 | 6.0 | 51 | 3.0 | 5.0 |"
    assert "ValueError: no" in lines[6]
    assert lines[-1].endswith("1e-06")
