"""Score the features of dictionaries in place of the writes they stand for.

A dictionary at a sublayer replaces its write o by  sum_i f_i d_i + b + error,  error = o - decode(f): feature i scores
f_i (d_i . w), w being the stream's covector pulled back to that write. A cross-layer transcoder's feature writes at
several layers; its score is the sum over them. A residual-stream SAE replaces everything written before its site. A
linear skip beside the features is a row of its own, and so is what a dictionary misses, `error`: the ledger closes
however poor the dictionary is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from whence.components.dictionaries import SAE, Dictionary
from whence.components.lazy import whole
from whence.components.sites import place_name
from whence.engine.dictionary_values import pulled_to, what_is_read, what_is_written
from whence.engine.functional import dot
from whence.engine.ledger import Ledger, Pulled
from whence.engine.reading import Place, place_of
from whence.model.layout import Writer
from whence.model.trace import Around, Write
from whence.results.keys import Node
from whence.results.runs import Run


@dataclass(frozen=True, eq=False)
class Features:
    """Dictionaries in their places: by writer key, and at most one in the stream.

    Args:
        at_writers: writer key -> the dictionary that stands for its write.
        in_stream: an SAE of a residual site, which stands for everything before it.
        norms: those in front of sublayers whose dictionaries read what the sublayer is not given itself.
    """

    at_writers: dict[str, Dictionary]
    in_stream: SAE | None
    norms: frozenset[nn.Module]
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

    @property
    def read_sublayers(self) -> bool:
        """Whether what a sublayer is given must be kept with its write."""
        return any(dictionary.kind != "sae" for dictionary in self.at_writers.values())

    def runs(self, writer: Writer) -> dict[str, Run] | None:
        """The rows that stand for a writer; None where no dictionary does."""
        dictionary = self.at_writers.get(writer.key)
        return None if dictionary is None else _runs(dictionary, writer.layer)

    def stream_runs(self) -> dict[str, Run]:
        """The rows of the residual SAE."""
        return {} if self.in_stream is None else _runs(self.in_stream, self.in_stream.layer)

    def add_write(self, ledger: Ledger, write: Write, around: Mapping[nn.Module, Around]) -> None:
        """Score a write through the dictionary that stands for it; `around` tells of `norms`."""
        layer, dictionary = write.writer.layer, self.at_writers[write.writer.key]
        pulled = pulled_to(dictionary.writes, write, ledger.covector.to(write.output.device))
        like, name = pulled.covector, f"{layer}.{_place(dictionary)}"
        rest = what_is_written(dictionary.writes, write).to(like)
        if layer in dictionary.layers:
            x = what_is_read(dictionary.reads, write, around).to(like)
            self.active[layer] = dictionary.encoder_of(layer).encode(x)
            skip = dictionary.skip_of(layer)
            if skip is not None:
                through = x @ skip.to(like).T
                rest = rest - through
                ledger.put(f"{name}.skip", pulled.scale(dot(through, like)))
        bias = dictionary.bias_of(layer).to(like)
        rest = rest - bias - self._add_features(ledger, pulled, dictionary, layer)
        constant = pulled.scale((like @ bias).expand(*ledger.scores.shape[:3]))
        ledger.put(f"{name}.bias", constant if pulled.constant is None else constant + pulled.constant)
        ledger.put(f"{name}.error", pulled.scale(dot(rest, like)))

    def _add_features(
        self, ledger: Ledger, pulled: Pulled, dictionary: Dictionary, layer: int
    ) -> Float[Tensor, "example asked d_model"]:
        """What all features write at a layer, once each of them has its score."""
        total, like = pulled.covector.new_zeros(()), pulled.covector
        for source in dictionary.layers:
            if layer in dictionary.written(source):
                decoder, features = whole(dictionary.decoder_of(source, layer)).to(like), self.active[source]
                total = total + features @ decoder
                scores = pulled.scale(features[:, :, None] * (like @ decoder.T))
                ledger.put(f"{source}.{_place(dictionary)}.feature", scores, add=source != layer)
        return total

    def add_stream(self, ledger: Ledger, stream: Float[Tensor, "example asked d_model"]) -> None:
        """Score the residual SAE's features, which stand for everything before its site."""
        sae = self.in_stream
        assert sae is not None
        name, like = f"{sae.layer}.{sae.site}", ledger.covector
        x = stream.to(like)
        features, decoder, bias = sae.encode(x), whole(sae.W_dec).to(like), sae.b_dec.to(like)
        ledger.put(f"{name}.feature", features[:, :, None] * (like @ decoder.T))
        ledger.put(f"{name}.bias", (like @ bias).expand(*ledger.scores.shape[:3]))
        ledger.put(f"{name}.error", dot(x - features @ decoder - bias, like))


def _runs(dictionary: Dictionary, layer: int) -> dict[str, Run]:
    """The rows of one layer: no features where it is only written."""
    place = _place(dictionary)
    runs: dict[str, Run] = {}
    if layer in dictionary.layers:
        units = range(dictionary.encoder_of(layer).n_features)
        runs[f"{layer}.{place}.feature"] = Run(Node(f"{place}.feature", layer, 0), units)
    if dictionary.skip_of(layer) is not None:
        runs[f"{layer}.{place}.skip"] = Run(Node(f"{place}.skip", layer))
    runs[f"{layer}.{place}.error"] = Run(Node(f"{place}.error", layer))
    runs[f"{layer}.{place}.bias"] = Run(Node(f"{place}.bias", layer))
    return runs


def _place(dictionary: Dictionary) -> str:
    """The first part of its features' names: transcoders' are the MLP's own."""
    return place_name(dictionary.site) if isinstance(dictionary, SAE) else "mlp"
