import dataclasses
import json
import logging

import pytest

from targets.pair_tokenizers import demo
from whence.errors import FileFormatError
from whence.targets.pair_files import load_pairs


def line(clean, patch, clean_answer=" are", patch_answer=" is", case="plural"):
    return {
        "clean_prefix": clean,
        "patch_prefix": patch,
        "clean_answer": clean_answer,
        "patch_answer": patch_answer,
        "case": case,
    }


SIMPLE = [line(f"The {noun}s", f"The {noun}") for noun in ("pilot", "guard", "clerk", "lawyer", "parent")]
BAD = [line("The xylophones", "The xylophone"), line("The guards", "The tall guard"), line("The harps", "The harp")]


@pytest.fixture
def file(tmp_path):
    def file(*lines):
        path = tmp_path / "pairs.json"
        path.write_text("\n".join(map(json.dumps, lines)))
        return path

    return file


def words(pairs):
    return [demo().decode(prompt[1:]).strip() for prompt in pairs.clean]


def test_usable_lines_are_kept_in_order_and_the_others_counted(file):
    pairs = load_pairs(file(BAD[0], *SIMPLE, *BAD[1:]), demo())
    assert words(pairs) == [one["clean_prefix"] for one in SIMPLE]
    assert pairs.dropped == {"unknown word": 2, "prompts differ in length": 1}
    assert pairs.source == "pairs.json"
    assert pairs.cases == ("plural",) * 5


def test_the_log_shows_the_lines_that_were_dropped(file, caplog):
    with caplog.at_level(logging.INFO, "whence"):
        load_pairs(file(SIMPLE[0], *BAD), demo())
    assert "2 of 4 pairs dropped; line 2: unknown word" in caplog.text
    assert "line 3: prompts differ in length" in caplog.text


def test_mixed_lengths_are_kept(file):
    longer = line("The pilots near the guard", "The pilot near the guard")
    assert load_pairs(file(SIMPLE[0], longer), demo(), slots=None).lengths == (3, 6)


def test_a_template_names_positions_and_drops_what_it_does_not_fit(file):
    longer = line("The pilots near the guard", "The pilot near the guard")
    pairs = load_pairs(file(SIMPLE[0], longer), demo(), slots="nounpp")
    assert pairs.order == ("<bos>", "The", "subject", "preposition", "the", "noun")
    assert pairs.slots == (pairs.order,)
    assert pairs.dropped == {"template does not fit": 1}


def test_index_slots_count_from_the_start(file):
    longer = line("The pilots near the guard", "The pilot near the guard")
    pairs = load_pairs(file(SIMPLE[0], longer), demo(), slots="index")
    assert (pairs.slots[0], pairs.order) == (("0", "1", "2"), ("0", "1", "2", "3", "4", "5"))


def test_without_a_seed_a_limit_keeps_the_first_and_with_one_it_draws(file):
    path = file(*BAD, *SIMPLE)
    everything = load_pairs(path, demo())
    assert load_pairs(path, demo(), limit=2).clean == everything[:2].clean
    draws = [load_pairs(path, demo(), limit=2, seed=seed).clean for seed in range(6)]
    assert draws[0] == load_pairs(path, demo(), limit=2, seed=0).clean
    assert len({*draws}) > 2
    assert all({*draw} <= {*everything.clean} for draw in draws)


def test_a_limit_beyond_the_file_gives_all_it_has(file):
    assert len(load_pairs(file(*SIMPLE), demo(), limit=100)) == 5
    assert sorted(words(load_pairs(file(*SIMPLE), demo(), limit=100, seed=1))) == sorted(
        one["clean_prefix"] for one in SIMPLE
    )


def test_dropped_lines_are_counted_over_the_whole_file_whatever_the_limit(file):
    assert load_pairs(file(*SIMPLE, *BAD), demo(), limit=1).dropped == load_pairs(file(*SIMPLE, *BAD), demo()).dropped


def test_a_file_without_patch_sides_gives_none(file):
    pairs = load_pairs(file({"clean_prefix": "The pilots", "clean_answer": " are"}), demo())
    assert (pairs.patch, pairs.patch_answers) == (None, None)


def test_a_file_with_nothing_usable_says_what_was_dropped_and_why(file):
    with pytest.raises(
        ValueError, match=r"of its 3 pairs were dropped: unknown word \(2\), prompts .* \(1\)\. line 1: "
    ):
        load_pairs(file(*BAD), demo())


def test_an_empty_file_is_refused(file):
    with pytest.raises(ValueError, match="no pair that can be used; of its 0 pairs"):
        load_pairs(file(), demo())


def test_a_malformed_line_is_no_dropped_one(file):
    with pytest.raises(FileFormatError, match="line 2 has no clean_answer"):
        load_pairs(file(SIMPLE[0], {"clean_prefix": "x"}), demo())


@pytest.mark.parametrize(("request_", "message"), [({"limit": 0}, "limit is 0"), ({"seed": 3}, "give a limit too")])
def test_a_request_that_means_nothing_is_refused(file, request_, message):
    with pytest.raises(ValueError, match=message):
        load_pairs(file(*SIMPLE), demo(), **request_)


def test_the_same_file_gives_the_same_pairs(file):
    one, two = (dataclasses.asdict(load_pairs(file(*SIMPLE, *BAD), demo(), slots="simple")) for _ in range(2))
    assert one == two
