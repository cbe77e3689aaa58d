import json

from rich.console import Console

from whence.demo.evaluate import TaskScore
from whence.demo.measure import DictionaryScore
from whence.demo.report import Report

TASKS = [
    TaskScore("two hops", "new", "top-1", "cities", 30, 0.9667),
    TaskScore("indirect object", "seen", "probability difference", "", 400, 0.8812),
]
WORSE = [TaskScore("two hops", "new", "top-1", "cities", 30, 0.9), TASKS[1]]
SCORES = [
    DictionaryScore("transcoders", 0, 0.00123456, 8.0, 0.25, 0.0123456, 0.9912345),
    DictionaryScore("transcoders", None, 0.002, 8.0, 0.25, 0.03, 0.98),
]
REPORT = Report({"loss": 1.3215, "seed": 0}, TASKS, SCORES, {"transcoders": WORSE, "cross_layer_transcoder": WORSE})


def shown(width=80):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(REPORT)
    return capture.get()


def test_the_tables_fit_eighty_columns_uncut():
    text = shown()
    assert max(map(len, text.splitlines())) <= 80
    assert "probability difference" in text
    assert "…" not in text


def test_a_held_out_task_is_starred_and_its_scores_stand_side_by_side():
    (row,) = [line.split() for line in shown().splitlines() if line.strip().startswith("two hops")]
    assert row == ["two", "hops,", "new*", "top-1", "0.967", "0.900", "0.900"]


def test_a_dictionary_s_row_has_every_number():
    (row,) = [line.split() for line in shown().splitlines() if line.split()[:2] == ["transcoders", "0"]]
    assert row == ["transcoders", "0", "0.0012", "8.0", "25.0%", "+0.0123", "99.12%"]


def test_the_file_holds_what_the_tables_show(tmp_path):
    REPORT.save(tmp_path / "report.json")
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["about"] == {"loss": 1.3215, "seed": 0}
    assert kept["tasks"][0] == {
        "family": "two hops",
        "variety": "new",
        "metric": "top-1",
        "held_out": "cities",
        "items": 30,
        "score": 0.9667,
    }
    assert [row["layer"] for row in kept["dictionaries"]] == [0, None]
    assert kept["dictionaries"][0]["nats_lost"] == 0.01235
    assert set(kept["in_place"]) == {"transcoders", "cross_layer_transcoder"}
