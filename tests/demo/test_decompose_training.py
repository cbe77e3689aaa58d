from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo.small import untrained
from whence.demo.decompose_sites import linear_maps, observed
from whence.demo.decompose_training import DecomposeRecipe, decompose
from whence.demo.model import document_seed
from whence.demo.tokenizer import documents, vocabulary

FEW = DecomposeRecipe(count=8, hidden=4, steps=3, batch=4, context=16, start=8, held_out=8)

VOCAB = vocabulary()


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def found(model):
    return decompose(model, FEW, VOCAB)


@pytest.fixture(scope="module")
def small():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(Path(__file__).parents[1] / "fixtures" / "small" / "model").eval()


def test_twenty_steps_on_the_small_model_lower_the_loss(small):
    seen = []
    recipe = replace(FEW, count=32, hidden=16, steps=20, batch=8, context=32, start=64, minimality=0.0)
    decompose(small, recipe, VOCAB, progress=lambda stage, done, total: seen.append(float(stage.split()[-1])))
    assert len(seen) == 20
    assert sum(seen[-3:]) < 0.7 * sum(seen[:3])


def test_the_more_minimality_weighs_the_less_is_needed(small):
    def needed(weight):
        recipe = replace(FEW, steps=20, network_learning_rate=2e-2, minimality=weight)
        found = decompose(small, recipe, VOCAB)
        ids = documents(document_seed("measure", 5), 8, 32, VOCAB)
        _, inputs = observed(small, linear_maps(small), ids)
        return sum(c.sum().item() for c in found.importances(inputs, torch.arange(8)).values())

    assert needed(1.0) < 0.8 * needed(0.0)


def test_the_model_stays_as_it_is(model):
    model.zero_grad()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    decompose(model, FEW, VOCAB)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_every_matrix_has_its_components_and_what_they_are_is_plain_data(model, found):
    for site, module in linear_maps(model).items():
        part = found.parts[site]
        assert (part.V.shape, part.U.shape) == ((module.in_features, 8), (8, module.out_features))
        assert not part.V.requires_grad
    assert found.about is not None
    assert found.about["seed"] == 0
    assert found.about["recipe"]["count"] == 8
    assert found.describe()["importance"] == "shared_mlp"


def test_alive_is_what_held_out_documents_ever_need(model):
    found = decompose(model, replace(FEW, steps=12, minimality=1.0, network_learning_rate=0.5), VOCAB)
    ids = documents(document_seed("measure", 0), FEW.held_out, FEW.context, VOCAB)
    _, inputs = observed(model, linear_maps(model), ids)
    for site, c in found.importances(inputs, torch.arange(len(ids))).items():
        ever = [any(c[d, t, k] > 0 for d in range(8) for t in range(16)) for k in range(8)]
        assert found.parts[site].ids.tolist() == [k for k in range(8) if ever[k]]
    assert any(len(part.ids) < 8 for part in found)


def test_the_same_seed_gives_the_same_components(model, found):
    again, other = (decompose(model, FEW, VOCAB, seed=seed) for seed in (0, 1))
    assert all(torch.equal(part.V, again.parts[part.site].V) for part in found)
    assert found.describe()["fingerprint"] == again.describe()["fingerprint"] != other.describe()["fingerprint"]
