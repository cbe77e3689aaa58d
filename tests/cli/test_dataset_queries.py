import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import METRICS

Whence = Callable[..., Result]
KEY = "output: sings"


def answer(whence: Whence, *arguments: Any) -> Any:
    result = whence("dataset", *map(str, arguments), "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_show_says_what_is_there_and_how_sure_it_is(whence: Whence, done: Path) -> None:
    found = DatasetAttributions.load(done)
    said = answer(whence, "show", done)
    assert (said["tokens"], set(said["targets"])) == (found.tokens, {*found.target_sites})
    assert said["worst_gap"] < 1e-5
    assert said["stability"] == found.stability().overlap
    shown = whence("dataset", "show", str(done)).stdout
    assert all(site in shown for site in found.source_sites)
    assert whence("show", str(done)).stdout == shown
    (folder,) = done.iterdir()
    assert whence("show", str(folder / "result")).stdout == shown


def test_rankings_are_those_of_the_library_page_by_page(whence: Whence, done: Path) -> None:
    found = DatasetAttributions.load(done)
    (sings,) = found.components("output").ids.tolist()
    whole = found.top_sources(f"output:{sings}", 6, metric="attr_abs", sign="both", normalise="share")
    asked = ("--metric", "attr_abs", "--sign", "both", "--normalise", "share", "-k", 3)
    pages = [answer(whence, "top-sources", done, KEY, *asked, *more) for more in ((), ("--page", 2), ("--offset", 3))]
    assert pages[1]["entries"] == pages[2]["entries"]
    entries = [(one["key"], one["value"]) for page in pages[:2] for one in page["entries"]]
    assert entries == [(str(one.key), one.value) for one in whole]
    first = str(whole[0].key)
    fed = answer(whence, "top-targets", done, first, "--site", "output")
    assert {one["site"] for one in fed["entries"]} <= {"output"}
    edge = answer(whence, "between", done, first, KEY)
    assert edge["value"] == found.between(first, f"output:{sings}").value
    table = whence("dataset", "top-sources", str(done), KEY, "-k", "2").stdout
    assert "What feeds" in table
    assert first in whence("dataset", "between", str(done), first, KEY).stdout


def test_tokens_that_were_not_named_have_their_signed_row(whence: Whence, done: Path) -> None:
    made = answer(whence, "top-sources", done, "output:5", "-k", 2)
    assert len(made["entries"]) == 2
    refused = whence("dataset", "top-sources", str(done), "output:5", "--metric", "rms")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "output_tokens" in refused.stderr
    kept = answer(whence, "top-sources", done, "output:5", "-k", 2, "--model", "demo")
    for one, other in zip(made["entries"], kept["entries"], strict=True):
        assert one["key"] == other["key"]
        assert one["value"] == pytest.approx(other["value"], rel=1e-6)


def test_sites_are_asked_as_blocks_matrices_and_units(whence: Whence, done: Path, tmp_path: Path) -> None:
    found = DatasetAttributions.load(done)
    block = answer(whence, "block", done, "1.attn.o", "1.attn.v")
    assert block["values"] == found.block("1.attn.o", "1.attn.v").values.tolist()
    assert "1.attn.v:0" in whence("dataset", "block", str(done), "1.attn.o", "1.attn.v").stdout
    matrix = answer(whence, "layers", done, "--how", "rms")
    assert matrix["targets"] == list(found.target_sites)
    picture = tmp_path / "sites.svg"
    shown = whence("dataset", "layers", str(done), "--plot", str(picture), "-k", "3").stdout
    assert picture.stat().st_size > 0
    assert "of its target's" in shown
    units = answer(whence, "components", done, "1.attn.q")
    assert units["ids"] == [0, 1]
    assert "1.attn.q:1" in whence("dataset", "components", str(done), "1.attn.q", "-k", "1", "--page", "2").stdout
    stable = answer(whence, "stability", done, "-k", 3)
    assert stable["overlap"] == found.stability(3).overlap
    assert "0.attn.q" in whence("dataset", "stability", str(done)).stdout


def test_a_node_is_shown_with_what_feeds_it_and_what_it_feeds(whence: Whence, done: Path) -> None:
    result = whence("show", str(done), "--node", "1.attn.q:0", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["into"]["of"], said["out_of"]["side"]) == ("1.attn.q:0", "target")
    missing = whence("show", str(done), "--node", "1.attn.q:7")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "1.attn.q has 2 units" in missing.stderr
    unknown = whence("dataset", "top-sources", str(done), "output:Sings")
    assert "no token of this run is 'Sings'" in unknown.stderr


def test_edges_are_exported_as_a_table_and_as_a_graph(whence: Whence, done: Path, tmp_path: Path) -> None:
    table, graph = tmp_path / "edges.csv", tmp_path / "edges.json"
    assert whence("dataset", "export", str(done), "-o", str(table), "-k", "2", "--metric", "attr").exit_code == 0
    with table.open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert columns[-2:] == ["attr", "attr.standard_error"]
    assert whence("dataset", "export", str(done), "-o", str(graph)).exit_code == 0
    assert json.loads(graph.read_text())["metadata"]["k"] == 10


def test_two_runs_are_compared(whence: Whence, done: Path) -> None:
    said = answer(whence, "diff", done, done, "--by", "z")
    assert (said["changes"], said["settings"]) == ([], {})
    assert "blocks in both" in whence("dataset", "diff", str(done), str(done)).stdout


def test_checksums_are_verified(whence: Whence, done: Path, tmp_path: Path) -> None:
    (folder,) = done.iterdir()
    assert "checksums" in whence("dataset", "verify", str(done)).stdout
    shutil.copytree(folder / "result", tmp_path / "result")
    (file,) = (tmp_path / "result").glob("blocks-*/target-output.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    damaged = whence("dataset", "verify", str(tmp_path / "result"))
    assert (damaged.exit_code, damaged.stdout) == (2, "")
    assert "target-output" in damaged.stderr


def test_the_places_behind_an_edge_are_found_with_the_runs_own_model(whence: Whence, done: Path) -> None:
    (first,) = answer(whence, "top-sources", done, KEY, "-k", 1, "--site", "3.glu.down", "--sign", "both")["entries"]
    (strongest,) = answer(whence, "examples", done, first["key"], KEY, "-k", 1, "--batches", 1)
    assert strongest["target_position"] == strongest["source_position"]
    assert len(strongest["tokens"]) == 16
    shown = whence("dataset", "examples", str(done), first["key"], KEY, "-k", "1", "--batches", "1").stdout
    assert "[⟨" in shown


def test_what_spd_saved_becomes_a_run(whence: Whence, tmp_path: Path) -> None:
    blocks = {"0.attn.q": {"embed": torch.arange(15.0).reshape(3, 5)}}
    counts = {"vocab_size": 5, "ci_threshold": 0.0, "n_batches_processed": 2, "n_tokens_processed": 10}
    file = tmp_path / "dataset_attributions.pt"
    torch.save(dict.fromkeys(METRICS, blocks) | counts, file)  # noqa: TID251  # the file that the command is for
    out = tmp_path / "runs"
    made = whence("dataset", "import", str(file), "-o", str(out))
    assert made.exit_code == 0, made.stderr
    first = answer(whence, "top-sources", out, "0.attn.q:2", "-k", 1)["entries"][0]
    assert (first["key"], first["value"], first["standard_error"]) == ("embed:4", 14.0, None)
    file.write_bytes(b"nothing")
    refused = whence("dataset", "import", str(file), "-o", str(tmp_path / "other"))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert not (tmp_path / "other").exists()
