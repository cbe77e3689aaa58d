"""An untrained copy of the two-layer model, and dictionaries that rebuild anything exactly."""

import torch

from whence.components.activation import Activation
from whence.components.dictionaries import SAE
from whence.components.sets import DictionarySet
from whence.demo.model import ModelRecipe, train_model
from whence.demo.tokenizer import vocabulary

RECIPE = ModelRecipe(n_layers=2, d_model=16, d_mlp=24, steps=2, batch=4, context=24)


def untrained():
    return train_model(RECIPE, vocabulary())


def exact_saes(site, d=16):
    both_signs = torch.cat([torch.eye(d), -torch.eye(d)])
    zeros = torch.zeros(2 * d), torch.zeros(d)
    return DictionarySet(
        tuple(SAE(i, both_signs, zeros[0], both_signs, zeros[1], Activation("relu"), site) for i in range(2))
    )
