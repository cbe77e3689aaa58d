"""A report lets nothing through that was not measured."""

import json
import math

import pytest

from whence.errors import VerificationError
from whence.verification.agreement import Agreement
from whence.verification.report import VerificationReport

NODES = ("embed:1@0", "embed:2@1", "embed:3@2", "embed:4@3")


def report(*errors: float) -> VerificationReport:
    one = Agreement(errors, math.nan, 1.0, 4)
    return VerificationReport(NODES, one, one, ("output:3@4",) * 4)


def test_nan_is_worst_of_all_and_passes_no_bound() -> None:
    found = report(0.25, math.nan, 0.5, math.nan)
    assert [node for node, _, _ in found.worst()] == ["embed:2@1", "embed:4@3", "embed:3@2", "embed:1@0"]
    with pytest.raises(VerificationError, match=r"removing embed:2@1 .* relative error nan"):
        found.check(max_error=1e9)
    with pytest.raises(VerificationError, match="spearman of predicted and live effects is nan"):
        report(0.0, 0.0, 0.0, 0.0).check(spearman=0.1)


def test_what_is_no_number_is_none_in_json() -> None:
    plain = json.loads(json.dumps(report(0.25, math.nan, math.inf, 0.0).to_json(), allow_nan=False))
    assert plain["frozen"]["errors"] == [0.25, None, None, 0.0]
    assert plain["frozen"]["max_error"] is None
    assert plain["live"]["spearman"] is None
