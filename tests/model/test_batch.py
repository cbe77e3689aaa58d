"""Every kind of input becomes one right-padded batch, or an error that says which prompt is wrong."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from whence.model.batch import MAX_TOKENS, Batch, pack, token_rows

CPU = torch.device("cpu")


class Words:
    """A tokenizer whose ids are the lengths of words, after a first token of its own."""

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=[1, *(len(word) for word in text.split())])


def encoded(ids: list[list[int]], mask: list[list[int]]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a bc", [[1, 1, 2]]),
        (["a bc", "abc"], [[1, 1, 2], [1, 3]]),
        (("a bc", "abc"), [[1, 1, 2], [1, 3]]),
        ([4, 5, 6], [[4, 5, 6]]),
        ([[4, 5], [6]], [[4, 5], [6]]),
        (torch.tensor([4, 5]), [[4, 5]]),
        (torch.tensor([[4, 5], [6, 7]]), [[4, 5], [6, 7]]),
        (torch.tensor([4, 5], dtype=torch.int32), [[4, 5]]),
        ([torch.tensor([4, 5]), torch.tensor([6])], [[4, 5], [6]]),
        ({"input_ids": [4, 5]}, [[4, 5]]),
        (encoded([[4, 5, 0], [6, 7, 8]], [[1, 1, 0], [1, 1, 1]]), [[4, 5], [6, 7, 8]]),
        (encoded([[0, 4, 5], [6, 7, 8]], [[0, 1, 1], [1, 1, 1]]), [[4, 5], [6, 7, 8]]),
        (encoded([[0, 4, 5]], [[0, 1, 1]]), [[4, 5]]),
    ],
)
def test_prompts_in_every_form_become_rows_of_ids(value: Any, expected: list[list[int]]) -> None:
    assert token_rows(value, Words()) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "int"),
        (None, "NoneType"),
        (b"ab", "bytes"),
        ([4, "a"], "list"),
        ([True, False], "list"),
        ([1.0, 2.0], "list"),
        (torch.tensor([0.5]), "float32"),
        (torch.tensor([True]), "bool"),
        (torch.zeros(1, 1, 1, dtype=torch.long), "3-D"),
    ],
)
def test_any_other_input_is_a_type_error_naming_it(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        token_rows(value, Words())


def test_text_without_a_tokenizer_asks_for_ids() -> None:
    with pytest.raises(ValueError, match="no tokenizer; pass token ids"):
        token_rows("text", None)


def test_short_prompts_are_padded_on_the_right_and_masked() -> None:
    batch = pack([[4, 5, 6], [7]], 10, CPU)
    assert batch.ids.tolist() == [[4, 5, 6], [7, 0, 0]]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.ragged
    assert not pack([[4], [5]], 10, CPU).ragged


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no prompt was given"),
        ([[4], []], "prompt 1 has no tokens"),
        ([[4], [5, 10]], "prompt 1 holds token id 10; this model has ids 0 to 9"),
        ([[-1]], "prompt 0 holds token id -1"),
        ([[4] * (MAX_TOKENS // 2 + 1), [5]], "split the batch"),
    ],
)
def test_a_prompt_that_cannot_run_is_named(rows: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(rows, 10, CPU)


BATCH = Batch(torch.zeros(2, 5, dtype=torch.long), torch.tensor([5, 3]))


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (-1, [[4], [2]]),
        (-3, [[2], [0]]),
        (0, [[0], [0]]),
        ([0, -1], [[0, 4], [0, 2]]),
        (range(3), [[0, 1, 2], [0, 1, 2]]),
        (None, [[0, 1, 2, 3, 4], [0, 1, 2, -1, -1]]),
    ],
)
def test_negative_positions_count_from_each_prompts_own_end(position: Any, expected: list[list[int]]) -> None:
    assert BATCH.rows(position).tolist() == expected


@pytest.mark.parametrize("position", [3, -4, [0, 4]])
def test_a_position_outside_the_shorter_prompt_names_it(position: Any) -> None:
    with pytest.raises(ValueError, match="outside prompt 1, which has 3 tokens"):
        BATCH.rows(position)


def test_an_empty_list_of_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="empty list"):
        BATCH.rows([])
