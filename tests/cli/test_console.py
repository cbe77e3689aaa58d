import pytest

from whence.cli.console import progress_bar


def test_work_is_counted_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the stream for a terminal
    with progress_bar() as progress:
        progress("rows", 1, 4)
        progress("rows", 3, 4)
    seen = capsys.readouterr()
    assert "rows" in seen.err
    assert "3/4" in seen.err
    assert seen.out == ""


def test_work_is_silent_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress_bar() as progress:
        progress("rows", 1, 4)
    assert capsys.readouterr() == ("", "")
