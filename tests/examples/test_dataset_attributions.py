from pathlib import Path

import pytest

import whence
from dataset_attributions import removed, telling_apart, verb_number
from whence.demo.corpus import demo_corpus


def test_what_a_component_feeds_the_verbs_number_is_what_the_model_loses_without_it(tmp_path: Path) -> None:
    model = whence.Model.from_pretrained(whence.demo.model_path())
    components, texts = whence.load_components(whence.demo.components_path()), demo_corpus(documents=64)
    before = model.hf.model.layers[3].mlp.down_proj.weight.clone()
    found = verb_number(model, components, texts, tmp_path)
    assert found.tokens == 64 * 24
    telling = telling_apart(model, found, 8)
    key, gap = next((key, gap) for key, gap in telling if key.startswith("3.glu.down"))
    # The attribution holds the final norm at its scale; the model's own moves with what is taken out.
    assert removed(model, components, key, texts) == pytest.approx(gap, rel=0.1)
    assert model.hf.model.layers[3].mlp.down_proj.weight.allclose(before, atol=1e-6)
