import pytest
import torch

from circuit_cases import Wide
from dataset_parts import rows, summed, wired
from families import fresh
from whence.components.importance.given import Ones
from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset.wired import Options
from whence.errors import UnsupportedModelError
from whence.model.model import Model


def all_of_the_embedding(model: Model) -> ParameterComponents:
    """Every singular vector of the embedding matrix, so that V U is the whole of it."""
    left, size, right = torch.linalg.svd(model.layout.embedding.get_parameter("weight").detach(), full_matrices=False)
    part = Part("embed.matrix", left * size, right)
    return ParameterComponents({part.site: part}, Ones({part.site: part.count}))


@pytest.mark.parametrize("name", ["llama", "gemma", "granite", "gpt2"])
def test_all_of_an_embedding_leaves_nothing_however_the_model_scales_it(name: str) -> None:
    model = Model(fresh(name, torch.float64))
    with Wide():
        wiring = wired(model, [all_of_the_embedding(model), "attn", "mlp"], Options(("attr",)))
        found = summed(wiring)
    for target in wiring.readings:
        whole, rest = (found[target, f"embed.matrix{end}"]["attr"] for end in ("", ".delta"))
        assert float(rest.abs().max()) < 1e-12 * float(whole.abs().max())


def test_its_components_give_a_token_what_the_token_gives_undecomposed() -> None:
    model = Model(fresh("granite", torch.float64))
    with Wide():
        parts = summed(wired(model, [all_of_the_embedding(model), "attn", "mlp"], Options(("attr",))))
        whole = summed(wired(model, ["attn", "mlp"], Options(("attr",))))
    by_part, by_token = parts["output", "embed.matrix"]["attr"], whole["output", "embed"]["attr"]
    assert by_token.shape[1] == len(torch.unique(rows().ids))
    assert torch.allclose(by_part.sum(1), by_token.sum(1))


def test_an_embedding_that_is_normed_cannot_be_decomposed() -> None:
    model = Model(fresh("bloom", torch.float64))
    with pytest.raises(UnsupportedModelError, match=r"BloomForCausalLM does more .* so embed\.matrix cannot be decomp"):
        wired(model, all_of_the_embedding(model))
