import pytest
from huggingface_hub import errors

from components.formats.by_hand import random
from whence.components.activation import Activation
from whence.components.dictionaries import SAE
from whence.components.loading import load_dictionary, save_dictionary
from whence.errors import FileFormatError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A repository in the Hub's cache, and what was asked of it."""
    asked = []
    own = SAE(1, random(6, 4), random(6), random(6, 4), random(4), Activation("relu"), "resid_post")
    save_dictionary(tmp_path / COMMIT / "small" / "one", own)

    def download(repository, *, revision, allow_patterns):
        asked.append((repository, revision, tuple(allow_patterns)))
        return str(tmp_path / COMMIT)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


@pytest.mark.parametrize(
    ("reference", "revision"),
    [
        ("org/repo.v2/small/one", None),
        ("hf://org/repo.v2/small/one", None),
        ("org/repo.v2/small/one@v1.0", "v1.0"),
        ("hf://org/repo.v2/small/one?revision=v1.0", "v1.0"),
    ],
)
def test_a_reference_names_a_repository_a_folder_and_a_revision(hub, reference, revision):
    found = load_dictionary(reference)
    assert (found.source, found.revision, found.layers) == (reference, COMMIT, (1,))
    repository, asked, patterns = hub[0]
    assert (repository, asked) == ("org/repo.v2", revision)
    assert all(pattern.startswith("small/one") for pattern in patterns)


def test_a_folder_that_the_repository_lacks_is_named(hub):
    with pytest.raises(FileFormatError, match="the repository org/repo has no 'other' at its main branch"):
        load_dictionary("org/repo/other")


@pytest.mark.parametrize("reference", ["./nothing", "/nothing/here", "nothing"])
def test_a_path_to_nothing_is_no_repository(reference):
    with pytest.raises(FileFormatError, match="there is no folder"):
        load_dictionary(reference)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def fail(*_, **__):
        raise errors.LocalEntryNotFoundError("a paragraph")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        FileFormatError, match=r"could not be asked for it .LocalEntryNotFoundError.. Check the connection"
    ):
        load_dictionary("org/repo")
