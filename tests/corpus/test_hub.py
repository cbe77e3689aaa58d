import sys
from types import SimpleNamespace

import pytest

from corpus.word_tokenizers import tokenizer
from whence.corpus import hub
from whence.corpus.prepare import prepare


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the package: an endless stream of records, and what was asked of it."""
    asked = []

    def load_dataset(path, *, split, streaming):
        asked.append((path, split, streaming))
        return ({"story": f"a {word}"} for _ in iter(int, 1) for word in "bcd")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_name_is_a_stream_of_its_split(asked, tmp_path):
    options = {"sequence_length": 3, "rows": 2, "text_field": "story", "seed": None}
    rows = prepare("hf:some/stories:test", tokenizer("eos"), tmp_path / "rows", **options)
    assert [rows.row(number).tolist() for number in range(2)] == [[10, 11, 2], [10, 12, 2]]
    assert rows.about["data"] == "hf:some/stories:test"
    hub.stream("some/stories")
    assert asked == [("some/stories", "test", True), ("some/stories", "train", True)]


@pytest.mark.parametrize("name", ["", ":train", "some/stories:", "some/stories:train:x"])
def test_a_name_of_another_form_is_refused(asked, name):
    with pytest.raises(ValueError, match="is no dataset; write 'hf:org/name' or 'hf:org/name:split'"):
        hub.stream(name)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the datasets package: pip install 'whence\[data\]'"):
        hub.stream("some/stories")
