from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from typer.testing import Result

from whence.cli import loading
from whence.cli.loading import LoadingError, locate
from whence.demo import model_path

Whence = Callable[..., Result]


class Unreachable(Exception):
    """Stands for what the Hub library's client raises, whichever client that is."""


def test_demo_is_the_model_that_ships() -> None:
    assert locate("demo") == model_path()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["gpt2", "organisation/model"])
def test_other_names_are_on_the_hub(name: str) -> None:
    assert locate(name) == Path(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./nowhere", "there is no folder './nowhere'"),
        ("/no/such/folder", "there is no folder '/no/such/folder'"),
        ("a/b/c", "there is no folder 'a/b/c'"),
        ("demoo", "there is no model 'demoo'; did you mean 'demo'?"),
        ("Demo", "did you mean 'demo'?"),
    ],
)
def test_a_name_that_can_be_nothing_is_refused_at_once(name: str, said: str) -> None:
    with pytest.raises(LoadingError) as error:
        locate(name)
    assert said in str(error.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadingError, match=r"has no config\.json"):
        locate(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (RepositoryNotFoundError, "the Hub has no such model that you can see"),
        (RevisionNotFoundError, "has no revision 'v9' on the Hub"),
        (GatedRepoError, "log in with `hf auth login`"),
        (Unreachable, "the Hub could not be asked for it (Unreachable); check the connection"),
    ],
)
def test_what_the_hub_answers_is_one_sentence(
    whence: Whence, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], said: str
) -> None:
    def model_info(*_: object, **__: object) -> None:
        if kind is Unreachable:
            raise kind("no route")
        raise kind("refused", response=SimpleNamespace(headers={}, request=None))  # type: ignore[call-arg]

    monkeypatch.setattr(HfApi, "model_info", model_info)
    result = whence("check", "organisation/a-model-nobody-has", "--revision", "v9")
    assert (result.exit_code, result.stdout) == (2, "")
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert "organisation/a-model-nobody-has" in sentence
    assert said in sentence


def test_a_name_the_hub_cannot_have_is_one_sentence(whence: Whence) -> None:
    result = whence("check", "a b")
    assert result.exit_code == 2
    assert "'a b' is neither a folder nor a name on the Hub" in result.stderr


@pytest.mark.parametrize("device", ["warp", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_one_sentence(whence: Whence, device: str) -> None:
    result = whence("check", "demo", "--device", device)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"error: --device {device}: " in result.stderr
    assert "This torch can use cpu" in result.stderr


def test_damaged_files_are_one_sentence(whence: Whence, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    result = whence("check", str(tmp_path))
    assert result.exit_code == 2
    assert f"error: cannot load '{tmp_path}': " in result.stderr


def test_a_family_that_transformers_does_not_know_is_one_sentence(whence: Whence, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "never_heard_of_it"}')
    result = whence("check", str(tmp_path))
    assert result.exit_code == 2
    assert "never_heard_of_it" in result.stderr.splitlines()[-1]


def test_warnings_of_the_library_reach_stderr(whence: Whence, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    def noisy(*_: object) -> None:
        logging.getLogger("whence.model").warning("something odd")

    monkeypatch.setattr(loading, "_check_device", noisy)
    result = whence("check", "demo")
    assert "something odd" in result.stderr
    assert "something odd" not in result.stdout
