from pathlib import Path
from typing import get_args

import pytest
import typer

from whence.cli import asking
from whence.demo import DictionaryName, dictionary_path


def test_the_shipped_dictionaries_are_those_of_the_demo() -> None:
    assert get_args(DictionaryName) == asking.SHIPPED


@pytest.mark.parametrize(("text", "read"), [("0.8/0.9", (0.8, 0.9)), ("0.6", (0.6, 0.98)), ("1/0", (1.0, 0.0))])
def test_shares_are_of_nodes_and_of_edges(text: str, read: tuple[float, float]) -> None:
    assert asking.shares(text) == read


@pytest.mark.parametrize("text", ["", "/", "0.8/", "0.8/0.9/0.7", "1.5", "-0.1", "nan", "half"])
def test_other_text_is_no_shares(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"such as 0\.8/0\.98"):
        asking.check_shares(text)


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "0/1/2"])
def test_other_text_is_no_part(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="0/4 is the first of four parts"):
        asking.check_part(text)


def test_a_local_dictionary_is_remembered_by_its_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dictionary_path("transcoders")
    monkeypatch.chdir(folder.parent)
    found = asking.dictionaries(folder.name, "another-model")
    assert found is not None
    assert found.describe()["source"] == str(folder.resolve())


def test_an_empty_folder_can_take_a_result(tmp_path: Path) -> None:
    assert asking.check_output(tmp_path) == tmp_path
    (tmp_path / "note.txt").touch()
    with pytest.raises(typer.BadParameter, match="left alone"):
        asking.check_output(tmp_path)
