from typing import Any

import pytest

import families
import whence
from whence.engine.granularity import GRANULARITIES, SPLITS, available, granularities


@pytest.mark.parametrize("by", [*GRANULARITIES, ("head",), ("head", "neuron", "channel"), ["source_token", "expert"]])
def test_one_or_several_that_split_different_writers_are_a_set(by: Any) -> None:
    assert granularities(by) == frozenset([by] if isinstance(by, str) else by)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("neurons", "did you mean 'neuron'"),
        (("head", "expret"), "by='expret' is no granularity; did you mean 'expert'"),
        ("", "it is one of component"),
        ([], "names no granularity"),
        (("head", "source_token"), "both split attn writes"),
        (("expert", "neuron"), "both split moe writes"),
        (("head", "layer"), "'layer' stands alone"),
        (("feature", "head"), "'feature' stands alone"),
    ],
)
def test_what_excludes_or_is_unknown_is_refused(by: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        granularities(by)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_what_is_available_are_the_kinds_of_writers_there_are(name: str) -> None:
    layout = whence.Model(families.tiny(name)).layout
    kinds = {writer.name for writer in layout.writers}
    offered = set(available(layout))
    assert {"component", "layer"} <= offered
    for by in ("neuron", "expert", "channel"):
        assert (by in offered) == bool(kinds & SPLITS[by])
    assert ("source_token" in offered) == ("attn" in kinds and layout.architecture.patterns is not None)
