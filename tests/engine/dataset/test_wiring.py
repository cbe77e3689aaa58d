import logging

import pytest

from dataset_parts import random_parts, small, wired
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS

FUSED = ("attn_fused.qkv", "attn_fused.o")


def test_what_is_pulled_by_position_is_warned_of_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    model = small("gpt2")
    wiring = wired(model, random_parts(model, only=FUSED), Options(METRICS))
    assert ("1.attn_fused.o", "1.attn_fused.qkv") in wiring.pulled
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert said.startswith(f"{len(wiring.pulled)} of {len(wiring.routes)} pairs of sites have no closed form")
    target, source = wiring.pulled[0]
    assert f"{source} -> {target}" in said
    assert "Leave it out of metrics=" in said
    assert "weighting='target'" in said


def test_without_squares_it_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = small("gpt2")
    with caplog.at_level(logging.INFO):
        assert wired(model, random_parts(model, only=FUSED), Options(("attr", "attr_abs"))).pulled
    assert "have no closed form" in caplog.text
    assert not any(one.levelno >= logging.WARNING for one in caplog.records)


def test_where_nothing_is_pulled_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        wiring = wired(small("llama biased"), ["attn", "mlp"], Options(METRICS))
    assert not wiring.pulled
    assert "closed form" not in caplog.text
