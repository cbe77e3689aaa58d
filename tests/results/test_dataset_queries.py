"""Every question against the slow obvious answer: all numbers in a dictionary, sorted."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_random import D_MODEL, FEEDS, IDS, PAIRS, VOCABULARY, complete, made
from whence.errors import FileFormatError
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_axes import STREAM, Header
from whence.results.dataset_keys import node_of
from whence.results.dataset_memory import MemoryStore
from whence.results.dataset_ranking import check_asked
from whence.results.dataset_store import open_store
from whence.results.dataset_writer import write_store
from whence.results.keys import Node

ASKED = [
    ("attr", "token"),
    ("attr_abs", "share"),
    ("mean_squared_attr", "target_rms"),
    ("rms", "source"),
    ("attr", "none"),
]


def _edges(store: MemoryStore, metric: Any, normalise: Any) -> Iterator[tuple[Node, Node, float, bool]]:
    """Every edge between nodes, one number at a time."""
    attributions = DatasetAttributions(store)
    for (to, site), in_sum in PAIRS.items():
        if to != STREAM:
            block = attributions.block(to, site, metric=metric, normalise=normalise)
            for i, target in enumerate(IDS[to][0]):
                for j, source in enumerate(IDS[site][0]):
                    yield node_of(to, target), node_of(site, source), float(block.values[i, j]), in_sum


def _ranked(values: list[tuple[Node, float]], sign: str) -> list[tuple[Node, float]]:
    size = {"positive": lambda value: value, "negative": lambda value: -value, "both": abs}[sign]
    return sorted([pair for pair in values if size(pair[1]) > 0], key=lambda pair: -size(pair[1]))


@pytest.mark.parametrize(("metric", "normalise"), ASKED)
@pytest.mark.parametrize("ties", [False, True])
def test_rankings_are_a_sort_of_every_edge(metric: Any, normalise: Any, ties: bool) -> None:
    store = made(1, ties=ties).store
    edges, attributions = list(_edges(store, metric, normalise)), DatasetAttributions(store)
    signs: list[Any] = ["positive", "both", *(["negative"] if metric in ("attr", "attr_abs") else [])]
    for sign in signs:
        for target in {edge[0] for edge in edges}:
            by_hand = _ranked([(source, value) for to, source, value, _ in edges if to == target], sign)
            found = attributions.top_sources(target, 100, metric=metric, normalise=normalise, sign=sign)
            assert [(entry.key, entry.value) for entry in found] == by_hand
            assert found.ranked == len(by_hand)
        for source in {edge[1] for edge in edges}:
            by_hand = _ranked([(target, value) for target, start, value, _ in edges if start == source], sign)
            found = attributions.top_targets(source, 100, metric=metric, normalise=normalise, sign=sign)
            assert [(entry.key, entry.value) for entry in found] == by_hand


@given(st.integers(1, 5), st.booleans(), st.sampled_from(["positive", "negative", "both"]))
@settings(max_examples=20, deadline=None)
def test_pages_continue_each_other(size: int, ties: bool, sign: Literal["positive", "negative", "both"]) -> None:
    attributions = DatasetAttributions(made(2, ties=ties).store)
    whole = attributions.top_sources("1.mlp.feature:11", 100, sign=sign)

    pages = [attributions.top_sources("1.mlp.feature:11", size, sign=sign, offset=at) for at in range(0, 12, size)]

    assert [entry for page in pages for entry in page] == list(whole)[: len(range(0, 12, size)) * size]
    assert {page.ranked for page in pages} == {whole.ranked}


@pytest.mark.parametrize(("metric", "normalise"), ASKED)
def test_between_is_the_entry_of_the_block(metric: Any, normalise: Any) -> None:
    store = made(3).store
    attributions = DatasetAttributions(store)
    for target, source, value, in_sum in _edges(store, metric, normalise):
        found = attributions.between(source, str(target), metric=metric, normalise=normalise)
        assert (float(found), found.in_sum) == (value, in_sum)
        assert (found.source, found.target) == (source, target)


def test_entries_carry_the_standard_error_of_their_edge_and_what_tokens_say() -> None:
    attributions = DatasetAttributions(made().store)
    for entry in attributions.top_sources("output:2", 50, sign="both"):
        assert entry.standard_error == attributions.between(entry.key, "output:2").standard_error
        assert entry.site in FEEDS["output"]
    said = {str(entry.key): entry.token for entry in attributions.top_sources("output:2", 50, sign="both")}
    assert said["embed:5"] == "▁cat"
    assert said["embed:7"] == "\n"
    assert said["embed:9"] is None
    assert said["0.attn.o:5"] is None


def test_shares_of_all_sources_add_up_as_the_targets_do() -> None:
    store = complete(4)
    attributions = DatasetAttributions(store)
    for site in FEEDS:
        if site == STREAM:
            continue
        quantities = store.header.targets[site].quantities
        for line, id in enumerate(IDS[site][0]):
            for metric, total in (
                ("attr_abs", 1.0),
                ("attr", float((quantities["value"] / quantities["absolute"])[line])),
            ):
                found = attributions.top_sources(node_of(site, id), 100, metric=metric, sign="both", normalise="share")
                assert math.isclose(sum(entry.value for entry in found), total, rel_tol=1e-9, abs_tol=1e-12)


def test_edges_outside_of_sums_say_so() -> None:
    found = DatasetAttributions(made().store).top_sources("0.attn.o:3", 20, sign="both")

    assert {entry.site: entry.in_sum for entry in found} == {"0.attn.q": False, "0.attn.v": True}


def test_sites_restrict_a_ranking() -> None:
    attributions = DatasetAttributions(made().store)
    found = attributions.top_sources("output:2", 50, sign="both", sites=["embed", "1.mlp.feature"])
    whole = attributions.top_sources("output:2", 50, sign="both")

    assert list(found) == [entry for entry in whole if entry.site in ("embed", "1.mlp.feature")]
    with pytest.raises(ValueError, match=r"give a list of source sites, which are embed, pos_embed"):
        attributions.top_sources("output:2", sites=["1.attn.head.q"])


def test_questions_about_a_unit_read_its_rows_or_columns_and_no_block() -> None:
    class Counting(MemoryStore):
        def block(self, target: str, source: str, statistic: str) -> torch.Tensor:
            raise AssertionError(f"the block {source} -> {target} was read")

    whole = made().store
    store = Counting(whole.header, whole.blocks, whole.extras)
    attributions, plain = DatasetAttributions(store), DatasetAttributions(whole)

    assert list(attributions.top_sources("output:2")) == list(plain.top_sources("output:2"))
    assert list(attributions.top_targets("embed:5")) == list(plain.top_targets("embed:5"))
    assert attributions.top_targets("embed:5", sites=[STREAM]).ranked
    assert attributions.between("embed:5", "output:7") == plain.between("embed:5", "output:7")


# ---------------------------------------------------------------- output tokens


def _all_tokens(store: MemoryStore, site: str) -> torch.Tensor:
    """[token, source]: the raw sums of every logit, coordinate by coordinate."""
    unembedding, block = store.extras["unembedding"].double(), store.block(STREAM, site, "attr")
    out = torch.zeros(VOCABULARY, block.shape[1], dtype=torch.float64)
    for token in range(VOCABULARY):
        for coordinate in range(D_MODEL):
            out[token] += 0.5 * unembedding[token, coordinate] * block[coordinate]
    return out


def test_a_token_that_was_not_counted_is_contracted_from_the_streams_coordinates() -> None:
    store = made(5).store
    attributions = DatasetAttributions(store)
    expected = {
        str(node_of(site, id)): float(_all_tokens(store, site)[7, j]) / attributions.tokens
        for site in FEEDS[STREAM]
        for j, id in enumerate(IDS[site][0])
    }

    found = attributions.top_sources("output:7", 50, sign="both")

    assert {str(entry.key): entry.value for entry in found} == pytest.approx(expected, rel=1e-9)
    assert all(entry.standard_error is None for entry in found)
    assert attributions.between("embed:5", "output:7").value == pytest.approx(expected["embed:5"])


def test_a_counted_token_has_its_own_row_and_every_metric() -> None:
    store = made(5).store
    attributions = DatasetAttributions(store)
    row = store.block("output", "embed", "attr_abs")[1] / attributions.tokens

    assert attributions.between("embed:5", "output:9", metric="attr_abs").value == float(row[1])


def test_the_size_of_an_uncounted_token_comes_from_second_moments() -> None:
    store = made(5).store
    attributions = DatasetAttributions(store)
    row = 0.5 * store.extras["unembedding"][7].double()
    mean_square = float(row @ store.extras["gram"] @ row) / attributions.tokens
    plain = attributions.between("embed:5", "output:7").value

    assert attributions.between("embed:5", "output:7", normalise="target_rms").value == pytest.approx(
        plain / math.sqrt(mean_square)
    )


def test_every_token_of_the_vocabulary_can_be_ranked_as_a_target() -> None:
    store = made(6).store
    attributions = DatasetAttributions(store)
    values = _all_tokens(store, "0.attn.o")[:, 2] / attributions.tokens
    by_hand = _ranked([(Node("output", index=id), float(values[id])) for id in range(VOCABULARY)], "both")

    found = attributions.top_targets("0.attn.o:5", 100, sign="both", sites=[STREAM])

    assert found.keys == [node for node, _ in by_hand]
    assert [entry.value for entry in found] == pytest.approx([value for _, value in by_hand])


def test_the_unembedding_may_come_from_a_matrix_or_a_model() -> None:
    store = made(5, extras=False).store
    matrix = made(5).store.extras["unembedding"]

    class Model:
        vocab_size = VOCABULARY

        def unembedding(self, ids: torch.Tensor) -> torch.Tensor:
            return 0.5 * matrix[ids]

    expected = DatasetAttributions(made(5).store).between("embed:5", "output:7").value
    for attributions in (DatasetAttributions(store, unembedding=matrix), DatasetAttributions(store, model=Model())):
        assert attributions.between("embed:5", "output:7").value == pytest.approx(expected, rel=1e-12)
        assert attributions.has_target("output:7")
    assert not DatasetAttributions(store).has_target("output:7")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metric": "rms"}, "Name the token in output_tokens="),
        ({"metric": "attr_abs"}, "it is not linear"),
        ({"normalise": "share"}, "no share"),
    ],
)
def test_what_is_not_linear_is_not_made_of_coordinates(asked: dict[str, Any], said: str) -> None:
    attributions = DatasetAttributions(made().store)
    with pytest.raises(ValueError, match=said):
        attributions.top_sources("output:7", **asked)
    with pytest.raises(ValueError, match=said):
        attributions.top_targets("embed:5", sites=[STREAM], **asked)


def test_a_token_without_unembedding_or_second_moments_says_what_to_give() -> None:
    bare = made(extras=False).store
    with pytest.raises(ValueError, match="model=model"):
        DatasetAttributions(bare).top_sources("output:7")
    attributions = DatasetAttributions(bare, unembedding=torch.ones(VOCABULARY, D_MODEL))
    with pytest.raises(ValueError, match="second moments"):
        attributions.top_sources("output:7", normalise="target_rms")


# ---------------------------------------------------------------- units that are not there


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("0.attn.o:4", "0.attn.o:4 is dead"),
        ("0.attn.o:8", "has 8 units, from 0 to 7"),
        ("0.attn.p:1", "not the name of a node"),
        ("0.attn.k:1", "'0.attn.k' is no target here; among them are 0.attn"),
        ("embed:5", "'embed' is no target here"),
        ("output:12", "the unembedding has 12 rows"),
    ],
)
def test_targets_that_are_not_there_are_named_with_the_reason(key: str, said: str) -> None:
    with pytest.raises((KeyError, ValueError), match=said):
        DatasetAttributions(made().store).top_sources(key)


def test_tokens_that_do_not_occur_are_no_dead_components() -> None:
    with pytest.raises(KeyError, match="embed:3 is not stored: the token does not occur in the data"):
        DatasetAttributions(made().store).top_targets("embed:3")


def test_has_says_what_can_be_asked() -> None:
    attributions = DatasetAttributions(made().store)

    sources = [attributions.has_source(key) for key in ("embed:5", "embed:3", "0.attn.o:3", "output:2", "pos_embed")]
    targets = [attributions.has_target(key) for key in ("output:2", "output:7", "output:12", "embed:5", "0.attn.o:8")]

    assert sources == [True, False, True, False, True]
    assert targets == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("metric", "sign", "k", "offset", "said"),
    [
        ("rms", "negative", 5, 0, "rms is never negative, so it has no negative list"),
        ("mean_squared_attr", "negative", 5, 0, "Ask attr or attr_abs"),
        ("attr", "minus", 5, 0, "none of positive, negative, both"),
        ("attr", "both", 0, 0, "at least one unit"),
        ("attr", "both", 1, -1, "after none or more"),
    ],
)
def test_lists_that_cannot_be_are_refused(metric: str, sign: str, k: int, offset: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_asked(metric, sign, k, offset)


def test_units_that_nothing_joins_are_refused() -> None:
    attributions = DatasetAttributions(made().store)
    with pytest.raises(ValueError, match=r"nothing leads from 1\.mlp\.feature to 0\.attn\.q"):
        attributions.between("1.mlp.feature:10", "0.attn.q:1")
    with pytest.raises(ValueError, match="layer_matrix"):
        attributions.block("0.attn.q", "1.mlp.feature")
    with pytest.raises(ValueError, match="give a list of target sites"):
        attributions.block("0.attn.k", "embed")


# ---------------------------------------------------------------- on disk


def test_a_stored_one_answers_as_the_one_in_memory(tmp_path: Path) -> None:
    store = made(7).store
    blocks = ((*pair, statistics) for pair, statistics in store.blocks.items())
    sub = tmp_path / "stories" / "da-20260102_030405"
    sub.mkdir(parents=True)
    write_store(sub / "result", store.header, blocks, store.extras)

    loaded, memory = DatasetAttributions.load(tmp_path / "stories"), DatasetAttributions(store)

    for key in ("output:2", "output:7", "0.attn.o:3", "1.attn.head:3.q"):
        assert list(loaded.top_sources(key, 50, sign="both")) == list(memory.top_sources(key, 50, sign="both"))
    for key in ("embed:5", "0.attn.o.bias"):
        found = loaded.top_targets(key, 50, sign="both", sites=None)
        assert list(found) == list(memory.top_targets(key, 50, sign="both"))
    assert repr(loaded) == repr(memory)


def test_of_blocks_cut_to_their_largest_columns_only_what_was_kept_is_told(tmp_path: Path) -> None:
    store, kept = made(8).store, 2
    pairs = [pair for pair in PAIRS if pair[1] == "embed"]
    cut = {pair: dict(store.blocks[pair]) for pair in PAIRS}
    for pair in pairs:
        columns = cut[pair]["attr"].abs().topk(kept).indices.sort().values
        arrays = {name: (block.gather(1, columns), block.sum(1)) for name, block in cut[pair].items()}
        cut[pair] = {"columns": columns}
        for name, (values, total) in arrays.items():
            cut[pair] |= {name: values, f"{name}.total": total}
    top = dict.fromkeys(pairs, kept)
    write_store(tmp_path / "result", store.header, ((*pair, one) for pair, one in cut.items()), top=top)
    attributions, whole = DatasetAttributions(open_store(tmp_path / "result")), DatasetAttributions(store)

    found = attributions.top_sources("0.attn.q:1", 50, sign="both", sites=["embed"])

    assert list(found) == list(whole.top_sources("0.attn.q:1", kept, sign="both", sites=["embed"]))
    lost = next(key for key in map(str, whole.top_sources("0.attn.q:1", 9, sign="both", sites=["embed"]).keys[kept:]))
    with pytest.raises(ValueError, match=f"{lost} is not among the largest sources of 0.attn.q:1"):
        attributions.between(lost, "0.attn.q:1")
    assert attributions.layer_matrix()["0.attn.q", "embed"] < whole.layer_matrix()["0.attn.q", "embed"]
    with pytest.raises(ValueError, match="only the largest columns"):
        attributions.top_targets("embed:5")
    assert ("0.attn.q", "embed") not in attributions.diff(whole).pairs
    records = attributions.to_dataframe(metrics=["attr"])
    assert len(records[(records.target == "0.attn.q:1") & records.source.str.startswith("embed")]) == kept


@pytest.mark.parametrize("path", ["nowhere", "no/such folder"])
def test_a_path_that_is_neither_a_folder_nor_a_run_is_refused_with_the_forms(path: str) -> None:
    with pytest.raises(FileFormatError, match=r"does not exist, and as a run: .*entity/project/id"):
        DatasetAttributions.load(path)


def test_a_block_that_is_not_what_its_header_says_is_refused() -> None:
    store = made().store
    header: Header = store.header
    blocks = dict(store.blocks)
    del blocks["0.attn.o", "0.attn.v"]

    with pytest.raises(
        ValueError, match=r"attr of 0\.attn\.v -> 0\.attn\.o must be a block of shape \(4, 2\), got None"
    ):
        MemoryStore(header, blocks)
