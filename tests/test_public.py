"""The public names: three lists that must agree, imported when first used, each documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import whence

SOURCE = ast.parse(Path(whence.__file__).read_text())


def typed() -> dict[str, str]:
    """Name -> module, of the imports that only a type checker sees."""
    block = next(node for node in SOURCE.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: f"{found.module}"
        for found in block.body
        if isinstance(found, ast.ImportFrom)
        for alias in found.names
        if found.module != "whence"  # a subpackage
    }


def test_the_three_lists_of_public_names_agree() -> None:
    assert {name: f"whence.{home}" for name, home in whence._HOME.items()} == typed()
    assert set(whence.__all__) == set(whence._HOME)
    assert len(set(whence.__all__)) == len(whence.__all__)


@pytest.mark.parametrize("name", whence.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    thing = getattr(whence, name)
    assert name in dir(whence)
    assert thing.__name__ == ("direct_logit_attribution" if name == "dla" else name)
    assert thing.__module__ == f"whence.{whence._HOME[name]}"
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing) and not issubclass(thing, Exception):
        for attribute, member in vars(thing).items():
            if not attribute.startswith("_") and inspect.isfunction(member):
                assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


def test_dla_is_an_alias() -> None:
    assert whence.dla is whence.direct_logit_attribution


def test_a_name_that_is_not_public_is_an_attribute_error_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'atribute'; it has: .*direct_logit_attribution"):
        _ = whence.atribute


def loaded_by(statement: str) -> set[str]:
    """The top-level packages loaded after a statement in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "transformers", "matplotlib", "pandas", "jaxtyping"}


@pytest.mark.parametrize(
    "statement", ["import whence", "import whence; dir(whence)", "import whence; whence.WhenceError"]
)
def test_importing_whence_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


def test_results_open_without_transformers() -> None:
    loaded = loaded_by("import whence; whence.Scores; whence.Node; whence.Graph")
    assert "torch" in loaded
    assert not loaded & {"transformers", "matplotlib", "pandas"}


def test_the_library_itself_does_not_import_transformers_until_a_model_is_read() -> None:
    assert "transformers" not in loaded_by("import whence; whence.Model; whence.dla; whence.logit_lens; whence.SAE")
