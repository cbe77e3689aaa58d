import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from demo.small import untrained
from whence.components.importance.given import Given, Ones
from whence.components.parameters import ParameterComponents, Part
from whence.demo.decompose_report import ComponentsScore, MatrixScore, measure_components
from whence.demo.decompose_sites import linear_maps, observed
from whence.demo.model import next_token_loss
from whence.demo.tokenizer import documents, vocabulary

IDS = documents(5, 3, 10, vocabulary())


@pytest.fixture(scope="module")
def model():
    return untrained()


def whole(model):
    """Components that rebuild every matrix exactly: one for each number that goes in."""
    maps = linear_maps(model)
    parts = {site: Part(site, torch.eye(m.in_features), m.weight.detach().T.clone()) for site, m in maps.items()}
    return ParameterComponents(parts, Ones({site: m.in_features for site, m in maps.items()}))


def test_components_that_miss_nothing_lose_nothing(model):
    score = measure_components(whole(model), model, IDS)
    assert score.loss == pytest.approx(next_token_loss(model(IDS).logits, IDS).item())
    assert all(abs(lost) < 1e-5 for lost in score.nats_lost.values())
    assert {row.delta for row in score.matrices} == {row.missed for row in score.matrices} == {0.0}
    assert score.active == 1.0


def test_masks_are_what_they_are_said_to_be(model):
    found = whole(model)
    _, inputs = observed(model, linear_maps(model), IDS)
    half = {site: torch.zeros(3, 10, count) for site, count in found.counts.items()}
    half["1.glu.down"][:, :, :6] = 0.5
    score = measure_components(replace(found, importance=Given(half)), model, IDS)

    def loss(mask):
        model_again = untrained()
        for site, module in linear_maps(model_again).items():
            with torch.no_grad():
                module.weight.mul_(mask(half[site][0, 0]))
        return next_token_loss(model_again(IDS).logits, IDS).item() - score.loss

    assert set(inputs) == set(half)
    assert score.nats_lost["importances"] == pytest.approx(loss(lambda c: c), abs=1e-5)
    assert score.nats_lost["needed"] == pytest.approx(loss(lambda c: (c > 0).float()), abs=1e-5)
    assert score.nats_lost["all"] == pytest.approx(0.0, abs=1e-5)
    assert {row.site: row.active for row in score.matrices if row.active} == {"1.glu.down": 6.0}
    assert score.active == pytest.approx(6 / sum(found.counts.values()))


def test_what_is_missed_is_weighted_by_data_and_delta_is_not(model):
    found, site = whole(model), "0.attn.q"
    part = found.parts[site]
    found = replace(
        found, parts={**found.parts, site: Part(site, part.V[:, :4], part.U[:4])}, importance=ones_but(found)
    )
    (row,) = [row for row in measure_components(found, model, IDS).matrices if row.site == site]
    W = linear_maps(model)[site].weight.detach()
    x = observed(model, linear_maps(model), IDS)[1][site][:, 1:].flatten(0, 1)
    assert row.delta == pytest.approx((W[:, 4:].norm() / W.norm()).item(), rel=1e-5)
    lost, all_of_it = (x[:, 4:] @ W[:, 4:].T).square().sum(), (x @ W.T).square().sum()
    assert row.missed == pytest.approx((lost / all_of_it).item(), rel=1e-5)
    assert (row.count, row.alive, row.active) == (4, 4, 4.0)


def ones_but(found):
    return Ones({**found.counts, "0.attn.q": 4})


def test_the_table_fits_eighty_columns_and_the_rows_are_rounded():
    lost = dict.fromkeys(("importances", "stochastic", "needed", "all"), 0.0123456)
    score = ComponentsScore(
        {"seed": 0}, 1.29, lost, 0.0512345678, (MatrixScore("0.glu.gate", 64, 60, 4.25, 0.2, 0.01),)
    )
    console = Console(width=80)
    with console.capture() as capture:
        console.print(score)
    assert max(map(len, capture.get().splitlines())) <= 80
    assert "0.glu.gate" in capture.get()
    rows = score.rows()
    assert rows["active"] == 0.05123
    assert rows["matrices"][0]["site"] == "0.glu.gate"
    assert json.loads(json.dumps(rows)) == rows
