import pytest
import torch

from whence.components.activation import Activation
from whence.demo.fit import DictionaryRecipe, fit
from whence.demo.sets import SetRecipe, fit_set

RELU = Activation("relu")
RECIPE = DictionaryRecipe(n_features=32, activation=Activation("topk", k=4), steps=400, batch=256, learning_rate=5e-3)


def sparse_reads(layers=2, tokens=4000, features=16, d=12):
    """Return sums of a few fixed directions, off-centre and scaled, as activations of a real model are."""
    g = torch.Generator().manual_seed(0)
    on = (torch.rand(layers, tokens, features, generator=g) < 0.1).float()
    strength = on * torch.rand(layers, tokens, features, generator=g)
    return 5.0 * strength @ torch.randn(layers, features, d, generator=g) + torch.randn(layers, 1, d, generator=g)


def fvu(rebuilt, y):
    return ((rebuilt - y).pow(2).sum((1, 2)) / (y - y.mean(1, keepdim=True)).pow(2).sum((1, 2))).tolist()


def rebuild(fitted, x, activation, sources):
    features = activation(torch.einsum("ltd,lfd->ltf", x, fitted.W_enc) + fitted.b_enc[:, None])
    sides = [torch.cat([features[s] for s in sources(t)], -1) for t in range(len(x))]
    return torch.stack([side @ dec for side, dec in zip(sides, fitted.W_dec, strict=True)]) + fitted.b_dec[:, None]


def test_a_fitted_sae_rebuilds_sparse_data_in_its_own_units():
    x = sparse_reads()
    fitted = fit(x, x, RECIPE)
    assert max(fvu(rebuild(fitted, x, RECIPE.activation, lambda t: [t]), x)) < 0.1


def test_decoders_across_layers_carry_what_the_own_layer_cannot_know():
    x = sparse_reads()
    y = torch.stack([x[0], x[0] @ torch.randn(12, 12, generator=torch.Generator().manual_seed(1))])
    own = fvu(rebuild(fit(x, y, RECIPE), x, RECIPE.activation, lambda t: [t]), y)
    across = fit(x, y, RECIPE, across_layers=True)
    later = fvu(rebuild(across, x, RECIPE.activation, lambda t: range(t + 1)), y)
    assert own[1] > 0.9
    assert later[1] < 0.15


def test_the_penalty_trades_what_is_active_for_what_is_missed():
    x, l0 = sparse_reads(), []
    for l1 in (0.0, 0.3):
        recipe = DictionaryRecipe(n_features=32, activation=RELU, steps=400, batch=256, l1=l1)
        fitted = fit(x, x, recipe)
        pre = torch.einsum("ltd,lfd->ltf", x, fitted.W_enc) + fitted.b_enc[:, None]
        l0.append((pre > 0).float().sum(-1).mean().item())
    assert l0[1] < 0.7 * l0[0]


def test_the_same_seed_gives_the_same_dictionary():
    x = sparse_reads(tokens=500)
    recipe = DictionaryRecipe(n_features=16, steps=20, batch=64)
    first, again, other = (fit(x, x, recipe, seed=seed).W_enc for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("across", [False, True], ids=["own layer", "across layers"])
def test_a_fitted_set_decodes_what_its_weights_say(across):
    from demo.small import untrained
    from whence.demo.sites import rebuilder, record
    from whence.demo.tokenizer import documents, vocabulary

    model, ids = untrained(), documents(2, 8, 20, vocabulary())
    recipe = DictionaryRecipe(n_features=20, steps=5, batch=64, documents=8, activation=RELU)
    x, y = (record(model, ids, site) for site in ("mlp_in", "mlp_out"))
    through = rebuilder(fit_set(SetRecipe("any", across_layers=across, dictionary=recipe), model, ids, seed=0))
    expected = rebuild(fit(x, y, recipe, across_layers=across), x, RELU, lambda t: range(t + 1) if across else [t])
    assert torch.allclose(torch.stack([through(layer, own) for layer, own in enumerate(x)]), expected, atol=1e-5)
