import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from whence.components.activation import Activation
from whence.components.dictionaries import Transcoder
from whence.components.loading import save_dictionary
from whence.demo import dictionary_path

Whence = Callable[..., Result]


def test_it_says_what_a_dictionary_is(whence: Whence) -> None:
    found = whence("dictionary", "info", str(dictionary_path("cross_layer_transcoder")))
    assert found.exit_code == 0, found.stderr
    for said in (r"kind +cross layer transcoder", r"site +mlp_in → mlp_out", r"width +128", r"activation +topk 8"):
        assert re.search(said, found.stdout), said
    assert re.search(r"^ *1 +512 +1-3 *$", found.stdout, re.MULTILINE)
    assert "FVU" not in found.stdout


@pytest.mark.parametrize("name", ["transcoders", "sae_resid_post", "sae_attn_out"])
def test_with_a_model_it_measures_how_well_it_fits(whence: Whence, name: str) -> None:
    found = whence("dictionary", "info", str(dictionary_path(name)), "--model", "demo", "--json")
    assert found.exit_code == 0, found.stderr
    rows = json.loads(found.stdout)["per_layer"]
    assert [row["layer"] for row in rows] == [0, 1, 2, 3]
    assert all(0 < row["FVU"] < 1 for row in rows)
    assert all(row["L0"] == 8.0 for row in rows)


def test_a_dictionary_that_does_not_fit_is_refused_with_both_shapes(whence: Whence, tmp_path: Path) -> None:
    tensors = torch.ones(6, 4), torch.ones(6), torch.ones(6, 4), torch.ones(4)
    save_dictionary(tmp_path / "other", Transcoder(0, *tensors, Activation("relu")))
    found = whence("dictionary", "info", str(tmp_path / "other"), "--model", "demo")
    assert found.exit_code == 2
    assert "(6, 4)" in found.stderr
    assert "(6, 128)" in found.stderr


def test_a_folder_that_is_not_there_is_one_sentence(whence: Whence) -> None:
    found = whence("dictionary", "info", "./nothing")
    assert found.exit_code == 2
    assert "there is no folder './nothing'" in found.stderr


def test_a_prompt_without_a_model_is_refused(whence: Whence) -> None:
    found = whence("dictionary", "info", str(dictionary_path("transcoders")), "--prompt", "The")
    assert found.exit_code == 2
    assert "it needs --model MODEL" in found.stderr


def test_without_a_command_it_says_where_they_are_listed(whence: Whence) -> None:
    found = whence("dictionary")
    assert (found.exit_code, found.stderr) == (2, "error: Missing command. See whence dictionary --help.\n")
