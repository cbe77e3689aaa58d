import pytest
import torch

import families
import whence
from by_hand import block, calls
from whence.components.activation import Activation
from whence.components.sets import DictionarySet
from whence.engine.dictionary_fit import fit_on

IDS = families.prompts(1, 7, seed=3)


def exact(site: str, width: int = families.WIDTH) -> DictionarySet:
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    zeros, activation = (torch.zeros(2 * width), torch.zeros(width)), Activation("relu")
    layers = (0,) if site == "embed" else (0, 1)
    return DictionarySet(tuple(whence.SAE(i, both, zeros[0], both, zeros[1], activation, site) for i in layers))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out_normed", "embed"])
def test_a_dictionary_that_rebuilds_anything_misses_nothing(name: str, site: str) -> None:
    for fit in fit_on(whence.Model(families.tiny(name)), exact(site), IDS):
        assert fit.fvu < 1e-10
        assert fit.l0 == families.WIDTH


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_share_missed_is_that_of_the_formula(name: str) -> None:
    hf, generator = families.tiny(name), torch.Generator().manual_seed(1)
    tensors = [
        0.3 * torch.randn(*shape, generator=generator) for shape in ((9, families.WIDTH), (9,), (9, families.WIDTH))
    ]
    skip, bias = 0.2 * torch.randn(families.WIDTH, families.WIDTH, generator=generator), torch.ones(families.WIDTH)
    own = whence.Transcoder(1, *tensors, bias, Activation("relu"), skip)
    (fit,) = fit_on(whence.Model(hf), DictionarySet((own,)), IDS)
    (call,), _ = calls(hf, IDS, block(hf, 1).mlp)
    x, y = call[0][0][0, 1:], call[1][0, 1:]
    features = (x @ own.W_enc.T + own.b_enc).relu()
    missed = y - features @ own.W_dec - bias - x @ skip.T
    assert fit.fvu == pytest.approx(float(missed.square().sum() / (y - y.mean(0)).square().sum()), rel=1e-4)
    assert fit.l0 == pytest.approx(float((features > 0).float().sum(1).mean()))


def test_a_prompt_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="at least three tokens"):
        fit_on(whence.Model(families.tiny("llama")), exact("resid_post"), IDS[:, :2])
