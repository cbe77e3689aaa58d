import json
import logging
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import dataset_stores as small
from whence.errors import FileFormatError
from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_merge import merge_stores
from whence.results.dataset_store import Store, open_store
from whence.results.dataset_writer import write_store

WINDOWS = tuple(range(9))


def _split(path: Path, cuts: list[int]) -> list[Path]:
    ends = [0, *sorted(cuts), len(WINDOWS)]
    return [
        small.store(path / f"{i:03d}-of-{len(ends) - 1:03d}", WINDOWS[first:last])
        for i, (first, last) in enumerate(pairwise(ends))
    ]


def _arrays(opened: Store) -> dict[str, torch.Tensor]:
    header = opened.header
    out = {
        f"{side}/{axis.site}/{name}": number
        for side, axes in (("target", header.targets), ("source", header.sources))
        for axis in axes.values()
        for name, number in axis.quantities.items()
    }
    return (
        out
        | {f"{pair}/{name}": opened.block(*pair, name) for pair in header.pairs for name in header.of(pair)}
        | {"gram": opened.extra("gram"), "unembedding": opened.extra("unembedding")}
    )


@given(cuts=some.one_of(*(some.lists(some.integers(0, 9), min_size=n, max_size=n) for n in (0, 1, 2, 6))))
@settings(max_examples=15, deadline=None)
def test_shards_however_cut_add_up_to_one_run(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("runs")
    whole = open_store(small.store(path / "whole", WINDOWS))

    merged = open_store(merge_stores(_split(path, cuts), path / "result", expected=WINDOWS))

    merged.verify()
    assert (merged.header.windows, merged.header.tokens) == (WINDOWS, whole.header.tokens)
    assert merged.header.settings == whole.header.settings
    wanted = _arrays(whole)
    for name, found in _arrays(merged).items():
        scale = wanted[name].abs().max()
        assert (found - wanted[name]).abs().max() <= 1e-12 * scale


def test_any_order_of_the_shards_gives_the_same_bits(tmp_path: Path) -> None:
    shards = _split(tmp_path, [2, 3, 7])
    files: set[tuple[bytes, ...]] = set()

    for order in permutations(shards):
        folder = merge_stores(order, tmp_path / "result", expected=WINDOWS)
        contents = [file.read_bytes() for file in sorted(folder.glob("blocks-*/*"))]
        said = json.loads((folder / "result.json").read_text())["meta"] | {"generation": ""}
        files.add((*contents, json.dumps(said).encode()))

    assert len(files) == 1


def test_float32_shards_are_added_in_float64(tmp_path: Path) -> None:
    shards = []
    for window in (0, 1):
        given = [(t, s, {n: b.float() for n, b in of.items()}) for t, s, of in small.blocks((window,))]
        shards.append(write_store(tmp_path / str(window), small.header((window,)), given, dtype=torch.float32))

    found = open_store(merge_stores(shards, tmp_path / "result", expected=None)).block("output", "embed", "attr")

    parts = [open_store(shard).block("output", "embed", "attr").double() for shard in shards]
    assert torch.equal(found, parts[0] + parts[1])


def test_what_is_merged_is_written_down(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    folder = merge_stores(
        _split(tmp_path, [4]), tmp_path / "r", expected=WINDOWS, progress=lambda *said: seen.append(said)
    )

    provenance = open_store(folder).header.provenance
    assert [one["name"] for one in provenance["shards"]] == ["000-of-002", "001-of-002"]
    assert [one["windows"] for one in provenance["shards"]] == [[[0, 3]], [[4, 8]]]
    assert "missing" not in provenance
    assert seen == [("merge", done, 6) for done in range(1, 7)]


def test_a_missing_shard_is_named_with_its_windows(tmp_path: Path) -> None:
    shards = _split(tmp_path, [2, 4, 5])

    with pytest.raises(FileFormatError) as caught:
        merge_stores([shards[0], shards[3]], tmp_path / "result", expected=WINDOWS)

    assert "windows 2-4 are missing: there is no shard 001-of-004, 002-of-004; " in str(caught.value)
    assert "2-4 would come after 000-of-004 and before 003-of-004" in str(caught.value)
    assert not (tmp_path / "result").exists()


def test_a_shard_that_stopped_early_is_named(tmp_path: Path) -> None:
    shards = [small.store(tmp_path / "000-of-002", (0, 1)), small.store(tmp_path / "001-of-002", (4, 5))]

    with pytest.raises(FileFormatError, match="windows 2-3, 6 are missing: 2-3 would come after 000-of-002 and before"):
        merge_stores(shards, tmp_path / "result", expected=range(7))


def test_missing_windows_can_be_allowed_and_are_kept_in_mind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = _split(tmp_path, [2, 4])
    for file in shards[1].glob("blocks-*/target-output.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])

    with caplog.at_level(logging.WARNING):
        folder = merge_stores([*shards, tmp_path / "absent"], tmp_path / "r", expected=range(11), allow_missing=True)

    header = open_store(folder).header
    assert header.windows == (0, 1, 4, 5, 6, 7, 8)
    assert header.tokens == small.header(header.windows).tokens
    assert header.provenance["missing"]["windows"] == [[2, 3], [9, 10]]
    assert header.provenance["missing"]["shards"].keys() == {"001-of-003", "absent"}
    assert "target-output.safetensors has" in header.provenance["missing"]["shards"]["001-of-003"]
    assert "merged without windows [[2, 3], [9, 10]]" in caplog.text


def test_repeated_and_strange_windows_are_refused(tmp_path: Path) -> None:
    one, two = small.store(tmp_path / "one", (0, 1)), small.store(tmp_path / "two", (1, 2))

    for shards in ([one, two], [one, one]):
        with pytest.raises(FileFormatError, match=r"window [01] is in .*one and in "):
            merge_stores(shards, tmp_path / "result", expected=range(3))
    with pytest.raises(FileFormatError, match="two has window 2, which is not one of the 2 of this run"):
        merge_stores([two], tmp_path / "result", expected=range(2))


def test_damage_in_any_file_of_a_shard_is_refused_by_name(tmp_path: Path) -> None:
    shards = _split(tmp_path, [4])
    for file in sorted(shards[1].glob("blocks-*/*")):
        content = file.read_bytes()
        for place in (12, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(FileFormatError, match=rf"001-of-002.*{file.name} is damaged"):
                merge_stores(shards, tmp_path / "result", expected=WINDOWS)
        file.write_bytes(content)

    merge_stores(shards, tmp_path / "result", expected=WINDOWS)


def _altered(path: Path, **changes: Any) -> Path:
    """A store of window 1 whose header differs."""
    header = small.header((1,))
    fields = {name: getattr(header, name) for name in header.__dataclass_fields__} | changes
    made = Header(**fields)
    given = {(target, source): of for target, source, of in small.blocks((1,))}
    blocks = [(*pair, {name: given[pair][name] for name in made.of(pair)}) for pair in made.pairs]
    return write_store(path, made, blocks, {"gram": torch.eye(4).double(), "unembedding": torch.zeros(3, 4)})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"settings": {"model": "other"}}, r"settings\['model'\] is 'other' there, and 'small'"),
        (
            {"settings": {"model": "small", "options": {"norms": "live", "metrics": ["attr", "attr_abs"]}}},
            r"settings\['options'\]\['norms'\] is 'live' there, and 'frozen'",
        ),
        ({"statistics": ("attr", "attr.half"), "only": {}}, r"the list of statistics is \('attr', 'attr.half'\)"),
        ({"only": {}, "pairs": {("output", "embed"): False}}, "the list of pairs is"),
        ({"only": {**small.ONLY, ("output", "embed"): ("attr",)}}, "the statistics of some pairs is"),
        (
            {"sources": {**small.header((1,)).sources, "pos_embed": Axis("pos_embed", torch.zeros(1).long(), 1)}},
            "the list of source sites is",
        ),
        (
            {"targets": {**small.header((1,)).targets, "output": Axis("output", torch.arange(3), 9)}},
            r"the first unit of target site output that differs is \[1\] there, and \[3\]",
        ),
        (
            {"targets": {**small.header((1,)).targets, "output": Axis("output", 3 * torch.arange(3), 8)}},
            "the size of target site output is 8 there, and 9",
        ),
        (
            {"sources": {**small.header((1,)).sources, "bias": Axis("bias", torch.zeros(1).long(), 3)}},
            r"the quantities of source site bias is \[\] there, and \['importance'\]",
        ),
        ({}, r"unembedding of .*altered is not that of"),
    ],
)
def test_shards_that_differ_are_refused_with_both_values(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    shards = [small.store(tmp_path / "first", (0,)), _altered(tmp_path / "altered", **changes)]

    with pytest.raises(FileFormatError, match=complaint):
        merge_stores(shards, tmp_path / "result", expected=None, allow_missing=True)

    assert not (tmp_path / "result").exists()


def test_the_largest_tokens_and_the_totals_are_kept(tmp_path: Path) -> None:
    shards = _split(tmp_path, [4])
    whole = open_store(merge_stores(shards, tmp_path / "whole", expected=WINDOWS))

    cut = open_store(merge_stores(shards, tmp_path / "cut", expected=WINDOWS, embed_top=2))

    cut.verify()
    assert cut.top("output", "embed") == 2
    assert cut.top("output", "bias") is None
    for name in small.STATISTICS:
        block = whole.block("0.attn.q", "embed", name)
        assert torch.equal(cut.totals("0.attn.q", "embed", name), block.sum(1))
        for i in range(5):
            kept = whole.row("0.attn.q", "embed", "attr", i).abs().argsort(descending=True)[:2].tolist()
            row = [value if j in kept else 0.0 for j, value in enumerate(block[i].tolist())]
            assert cut.row("0.attn.q", "embed", name, i).tolist() == row
    assert torch.equal(cut.block("output", "bias", "attr"), whole.block("output", "bias", "attr"))


def test_a_limit_beyond_the_tokens_keeps_them_all(tmp_path: Path) -> None:
    folder = merge_stores(_split(tmp_path, []), tmp_path / "cut", expected=WINDOWS, embed_top=7)

    assert open_store(folder).top("output", "embed") is None


def test_mistakes_in_arguments_have_their_remedy(tmp_path: Path) -> None:
    shard = small.store(tmp_path / "one", (0,))
    cut = merge_stores([shard], tmp_path / "cut", expected=None, embed_top=2)

    with pytest.raises(ValueError, match="no folders were given"):
        merge_stores([], tmp_path / "result", expected=None)
    with pytest.raises(ValueError, match="embed_top=0 keeps no token"):
        merge_stores([shard], tmp_path / "result", expected=None, embed_top=0)
    with pytest.raises(FileFormatError, match="nothing can be added to it"):
        merge_stores([cut], tmp_path / "result", expected=None)
    with pytest.raises(FileFormatError, match="none of the 1 shards can be opened"):
        merge_stores([tmp_path / "absent"], tmp_path / "result", expected=None, allow_missing=True)
