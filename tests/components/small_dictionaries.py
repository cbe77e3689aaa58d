"""Random dictionaries of a few features."""

import torch

from whence.components.activation import Activation
from whence.components.dictionaries import CrossLayerTranscoder, Transcoder

TOP_2 = Activation("topk", k=2)


def weights(seed, features=6, d=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in ((features, d), (features,), (features, d), (d,))]


def transcoders(*layers):
    return [Transcoder(layer, *weights(layer), TOP_2) for layer in layers]


def cross_layer(layers=3):
    generator = torch.Generator().manual_seed(0)
    decoders = tuple(torch.randn(6, layers - source, 4, generator=generator) for source in range(layers))
    encoder, bias = torch.randn(layers, 6, 4, generator=generator), torch.randn(layers, 6, generator=generator)
    last = torch.randn(layers, 4, generator=generator)
    return CrossLayerTranscoder(tuple(encoder), tuple(bias), decoders, tuple(last), TOP_2)
