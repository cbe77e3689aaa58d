import logging
from dataclasses import replace
from typing import Any

import pytest

from dataset_parts import random_parts, small, wired
from whence.engine.dataset import attention_found, places
from whence.engine.dataset.wired import Options
from whence.errors import UnsupportedModelError
from whence.results.dataset_axes import METRICS


def entry_says(monkeypatch: pytest.MonkeyPatch, **wrong: Any) -> None:
    """From now on the first MLP's entry says something else."""
    true = places.sublayers_of

    def told(*args: Any) -> Any:
        return tuple(replace(one, **wrong) if one.key == "0.mlp" else one for one in true(*args))

    monkeypatch.setattr(places, "sublayers_of", told)


@pytest.mark.parametrize("name", ["llama biased", "gpt2"])
def test_an_entry_that_puts_sublayers_side_by_side_which_are_not_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_says(monkeypatch, stage=0)
    model = small(name)
    with pytest.raises(
        UnsupportedModelError, match=r"0\.attn\S* reaches 0\.(glu|mlp)\.\S+ in this model, and its family's entry says"
    ):
        wired(model, random_parts(model))


@pytest.mark.parametrize(("wrong", "pair"), [({"factor": 2.0}, "0.mlp.down -> "), ({"entered": 0.5}, " -> 0.mlp.up")])
def test_an_entry_that_scales_what_is_written_or_read_otherwise_is_refused(
    wrong: dict[str, float], pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_says(monkeypatch, **wrong)
    model = small("gpt2")
    with pytest.raises(
        UnsupportedModelError, match=f"{pair}.*: the closed form is off by .* see docs/adding-a-model.md"
    ):
        wired(model, random_parts(model))


def test_an_attention_that_compares_otherwise_is_pulled_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    true = attention_found.compared

    def half(*args: Any) -> Any:
        found = true(*args)
        return None if found is None else replace(found, scale=found.scale / 2)

    monkeypatch.setattr(attention_found, "compared", half)
    model = small("llama biased")
    with caplog.at_level(logging.INFO):
        wiring = wired(model, random_parts(model), Options(METRICS))
    assert wiring.routes["1.attn.o", "1.attn.q"] == "backward"
    assert wiring.routes["1.attn.o", "1.attn.v"] == "values"
    assert "1.attn.q -> 1.attn.o is pulled" in caplog.text
