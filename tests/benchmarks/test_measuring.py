import io
import json
import sys

import pytest
import torch

from measuring import MARK, Case, measure, serve


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is read from /proc")
def test_extra_memory_sees_what_a_call_used_for_a_while_and_bytes_what_it_returned() -> None:
    case = Case(lambda: torch.ones(25_000_000).sum(dim=0, keepdim=True), lambda tensor: tensor.nbytes)
    numbers, result = measure(case)
    assert 95e6 < numbers["extra"] < 120e6
    assert numbers["result"] == 4
    assert float(result) == 25e6


def test_a_failing_case_is_an_answer_and_the_next_one_is_measured(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    cases = {"bad": Case(fail, lambda _: 0), "good": Case(lambda: torch.ones(2), lambda tensor: tensor.nbytes)}
    requests = "".join(json.dumps({"case": case, "save": None}) + "\n" for case in ("bad", "good"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(requests))
    serve(cases, {"torch": "1"})
    lines = capfd.readouterr().out.splitlines()
    versions, bad, good = (json.loads(line.removeprefix(MARK)) for line in lines)
    assert versions == {"versions": {"torch": "1"}}
    assert bad == {"error": "ValueError: no such thing"}
    assert good["result"] == 8
