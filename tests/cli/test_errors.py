from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from whence.cli import check
from whence.cli.errors import raised_on_purpose, sentence_of
from whence.errors import LedgerError

Whence = Callable[..., Result]


def caught(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def test_what_whence_raises_is_for_the_user() -> None:
    from whence.results.keys import Node

    error = caught(lambda: Node.parse("0.mpl"))
    assert raised_on_purpose(error)
    assert sentence_of(error) == str(error)


def test_what_escapes_from_elsewhere_is_a_bug() -> None:
    for call in (lambda: int("x"), lambda: {}["missing"], lambda: [].index(1)):
        error = caught(call)
        assert not raised_on_purpose(error)
        assert sentence_of(error) is None


def test_what_python_raises_inside_whence_is_a_bug() -> None:
    from whence.results.runs import Run

    error = caught(lambda: Run.from_json({}))  # an indexing mistake in our code, not a `raise`
    assert isinstance(error, KeyError)
    assert sentence_of(error) is None


def test_a_file_that_cannot_be_written_is_named() -> None:
    error = caught(Path("/nowhere/at/all").read_text)
    assert sentence_of(error) == "/nowhere/at/all: No such file or directory."


def test_a_bug_keeps_its_traceback(whence: Whence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "load", lambda *_: {}["missing"])
    result = whence("check", "demo")
    assert isinstance(result.exception, KeyError)


def test_a_ledger_that_does_not_add_up_is_a_sentence(whence: Whence, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise LedgerError("the parts miss the number by 3.")

    monkeypatch.setattr(check, "load", load)
    result = whence("check", "demo")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: the parts miss the number by 3.\n")


def test_brackets_in_an_error_are_no_markup(whence: Whence) -> None:
    assert "[/red]" in whence("check", "./[/red]").stderr
