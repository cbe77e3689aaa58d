"""Score the features of dictionaries in place of the writes they stand for.

A dictionary at a sublayer replaces its write o by  sum_i f_i d_i + b + error,  error = o - decode(f): feature i scores
f_i (d_i . w), w being the stream's covector pulled back to that write. A cross-layer transcoder's feature writes at
several layers; its score is the sum over them. A residual-stream SAE replaces everything written before its site.
What a dictionary misses is its own row, `error`, so the ledger closes however poor the dictionary is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from whence.components.dictionaries import SAE, CrossLayerTranscoder, Dictionary, Transcoder
from whence.engine.functional import dot
from whence.engine.ledger import Ledger, pull_writer
from whence.engine.reading import Place, place_of
from whence.model.layout import Layout, Writer
from whence.model.trace import Write
from whence.results.keys import Node
from whence.results.runs import Run


@dataclass(frozen=True, eq=False)
class Features:
    """Dictionaries in their places: by writer key, and at most one in the stream.

    Args:
        at_writers: writer key -> the dictionary that stands for its write.
        in_stream: an SAE of a residual site, which stands for everything before it.
    """

    at_writers: dict[str, Dictionary]
    in_stream: SAE | None
    active: dict[int, Float[Tensor, "example asked feature"]] = field(default_factory=dict[int, Tensor])

    @property
    def start(self) -> Place:
        """Writes before this place are inside the residual SAE's features."""
        return (0, 0) if self.in_stream is None else place_of(self.in_stream.site, self.in_stream.layer)

    @property
    def stream(self) -> int | None:
        """The layer after which the residual SAE reads the stream; -1 before the first, None without such an SAE."""
        if self.in_stream is None:
            return None
        return self.in_stream.layer - (self.in_stream.site == "resid_pre")

    def runs(self, writer: Writer) -> dict[str, Run] | None:
        """The rows that stand for a writer; None where no dictionary does."""
        dictionary = self.at_writers.get(writer.key)
        return None if dictionary is None else _runs(_place(dictionary), writer.layer, dictionary.n_features)

    def stream_runs(self) -> dict[str, Run]:
        """The rows of the residual SAE."""
        sae = self.in_stream
        return {} if sae is None else _runs(sae.site, sae.layer, sae.n_features)

    def add_write(self, ledger: Ledger, write: Write) -> None:
        """Score a write through the dictionary that stands for it."""
        layer, dictionary = write.writer.layer, self.at_writers[write.writer.key]
        name = f"{layer}.{_place(dictionary)}"
        pulled = pull_writer(write, ledger.covector.to(write.output.device))
        like = pulled.covector
        if isinstance(dictionary, SAE):
            self.active[layer] = dictionary.encode(write.output.to(like))
        else:
            assert write.sublayer is not None
            self.active[layer] = _encode(dictionary, layer, write.sublayer.input.to(like))
        bias = _decoder_bias(dictionary, layer).to(like)
        rest = write.output.to(like) - bias
        for source, decoder in _decoders(dictionary, layer):
            features = self.active[source]
            rest = rest - features @ decoder.to(like)
            scores = pulled.scale(features[:, :, None] * (like @ decoder.to(like).T))
            ledger.put(f"{source}.{_place(dictionary)}.feature", scores, add=source != layer)
        constant = pulled.scale((like @ bias).expand(*ledger.scores.shape[:3]))
        ledger.put(f"{name}.bias", constant if pulled.constant is None else constant + pulled.constant)
        ledger.put(f"{name}.error", pulled.scale(dot(rest, like)))

    def add_stream(self, ledger: Ledger, stream: Float[Tensor, "example asked d_model"]) -> None:
        """Score the residual SAE's features, which stand for everything before its site."""
        sae = self.in_stream
        assert sae is not None
        name, like = f"{sae.layer}.{sae.site}", ledger.covector
        x = stream.to(like)
        features, decoder, bias = sae.encode(x), sae.W_dec.to(like), sae.b_dec.to(like)
        ledger.put(f"{name}.feature", features[:, :, None] * (like @ decoder.T))
        ledger.put(f"{name}.bias", (like @ bias).expand(*ledger.scores.shape[:3]))
        ledger.put(f"{name}.error", dot(x - features @ decoder - bias, like))


def place_features(layout: Layout, dictionaries: Iterable[Dictionary], width: int) -> Features:
    """The dictionaries put where they belong in a model.

    Raises:
        ValueError: a width or layer that is not the model's, or two dictionaries for the same write.
        NotImplementedError: a site with no single write to stand for, or several residual sites.
    """
    at_writers: dict[str, Dictionary] = {}
    in_stream: list[SAE] = []
    for dictionary in dictionaries:
        if dictionary.W_enc.shape[-1] != width:
            raise ValueError(
                f"the dictionary reads vectors of width {dictionary.W_enc.shape[-1]}; the model's stream has width "
                f"{width}"
            )
        if isinstance(dictionary, SAE) and dictionary.site.startswith("resid"):
            in_stream.append(dictionary)
            continue
        for layer in _layers(dictionary):
            key = _writer_key(layout, dictionary, layer)
            if key in at_writers:
                raise ValueError(f"two dictionaries stand for the write of {key}; pass one of them")
            at_writers[key] = dictionary
    if len(in_stream) > 1:
        layers = ", ".join(f"{sae.layer}.{sae.site}" for sae in in_stream)
        raise NotImplementedError(
            f"residual dictionaries at {layers} each stand for the whole stream and cannot share a ledger; pass one, "
            f"e.g. dictionary[{in_stream[-1].layer}]"
        )
    for sae in in_stream:
        if sae.site == "resid_mid":
            raise NotImplementedError(
                "a ledger of a resid_mid dictionary is not offered; use one at resid_pre or resid_post"
            )
        if sae.layer >= len(layout.blocks):
            raise ValueError(
                f"the dictionary is for layer {sae.layer}; the model has layers 0 to {len(layout.blocks) - 1}"
            )
    return Features(at_writers, in_stream[0] if in_stream else None)


def _writer_key(layout: Layout, dictionary: Dictionary, layer: int) -> str:
    if layer >= len(layout.blocks):
        raise ValueError(f"the dictionary is for layer {layer}; the model has layers 0 to {len(layout.blocks) - 1}")
    wanted = "attn" if dictionary.writes == "attn_out" else "mlp"
    names = [writer.name for writer in layout.of(layer)]
    if wanted not in names:
        raise NotImplementedError(
            f"a dictionary at {dictionary.writes} needs a single {wanted} write in layer {layer}, which holds "
            f"{', '.join(names)}"
        )
    return f"{layer}.{wanted}"


def _runs(place: str, layer: int, n_features: int) -> dict[str, Run]:
    return {
        f"{layer}.{place}.feature": Run(Node(f"{place}.feature", layer, 0), range(n_features)),
        f"{layer}.{place}.error": Run(Node(f"{place}.error", layer)),
        f"{layer}.{place}.bias": Run(Node(f"{place}.bias", layer)),
    }


def _place(dictionary: Dictionary) -> str:
    """The first part of its features' names: transcoders' are the MLP's own."""
    return dictionary.site if isinstance(dictionary, SAE) else "mlp"


def _layers(dictionary: Dictionary) -> range:
    if isinstance(dictionary, CrossLayerTranscoder):
        return range(dictionary.n_layers)
    return range(dictionary.layer, dictionary.layer + 1)


def _encode(dictionary: Transcoder | CrossLayerTranscoder, layer: int, x: Tensor) -> Tensor:
    if isinstance(dictionary, Transcoder):
        return dictionary.encode(x)
    return dictionary.activation(x @ dictionary.W_enc[layer].to(x).T + dictionary.b_enc[layer].to(x))


def _decoder_bias(dictionary: Dictionary, layer: int) -> Float[Tensor, " d_model"]:
    return dictionary.b_dec[layer] if isinstance(dictionary, CrossLayerTranscoder) else dictionary.b_dec


def _decoders(dictionary: Dictionary, layer: int) -> list[tuple[int, Float[Tensor, "feature d_model"]]]:
    """(layer whose features write here, what each of them writes here)."""
    if isinstance(dictionary, CrossLayerTranscoder):
        return [(source, dictionary.W_dec[source][:, layer - source]) for source in range(layer + 1)]
    return [(layer, dictionary.W_dec)]
