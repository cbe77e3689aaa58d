import pytest
import torch

from whence.results.certificate import Certificate


def _certificate(gap: list[float], magnitude: list[float]) -> Certificate:
    rows = torch.arange(len(gap)) * 2
    return Certificate(rows, torch.ones(len(gap)), torch.tensor(gap).abs(), torch.tensor(magnitude), bound=1e-3)


def test_gaps_are_judged_by_the_size_of_what_was_summed() -> None:
    certificate = _certificate([1e-3, 0.0, 4e-3], [10.0, 1.0, 1.0])

    assert (certificate.worst, certificate.median) == pytest.approx((4e-3, 1e-4), rel=1e-6)
    assert not certificate.holds
    assert (
        str(certificate) == "3 rows add up to 4.0e-03 of the size of the parts, median 1.0e-04, above the bound 1e-03"
    )


def test_an_empty_row_that_explains_nothing_has_no_gap_and_one_that_misses_has_all() -> None:
    assert _certificate([0.0], [0.0]).worst == 0.0
    assert _certificate([1.0], [0.0]).worst == float("inf")


def test_without_rows_nothing_is_claimed() -> None:
    assert (Certificate().worst, Certificate().median) == (0.0, 0.0)
    assert str(Certificate()) == "no row was checked against the model"


def test_a_selection_renumbers_its_rows() -> None:
    kept = _certificate([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]).select(torch.tensor([0, 3, 4]), 5)

    assert (kept.rows.tolist(), kept.gap.tolist(), kept.bound) == ([0, 2], [1.0, 3.0], 1e-3)
