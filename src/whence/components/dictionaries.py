"""The kinds of dictionary, under one name: transcoder, cross-layer transcoder and sparse autoencoder.

All three offer, by layer: `layers` (those read), `written(layer)`, `encoder_of(layer)`, `decoder_of(layer, at)`,
`bias_of(layer)`, `skip_of(layer)`, `reads`, `writes` and `kind`. Nothing is computed here.
"""

from typing import TypeAlias

from whence.components.cross_layer import CrossLayerTranscoder
from whence.components.sae import SAE
from whence.components.transcoder import Transcoder

Dictionary: TypeAlias = Transcoder | SAE | CrossLayerTranscoder
