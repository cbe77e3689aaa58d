"""Where dictionaries belong in a model, and what is refused because it belongs nowhere. Nothing is computed here."""

from collections.abc import Iterable

from torch import nn

from whence.components.dictionaries import SAE, Dictionary
from whence.components.sets import DictionarySet
from whence.engine.features import Features
from whence.engine.table import input_width
from whence.model.layout import Layout, Writer


def place_features(layout: Layout, dictionaries: Iterable[Dictionary], width: int) -> Features:
    """The dictionaries put where they belong in a model.

    Raises:
        ValueError: a width or layer that is not the model's, or two dictionaries for the same write.
        NotImplementedError: a site with no single write to stand for, or several residual sites.
    """
    at_writers: dict[str, Dictionary] = {}
    in_stream: list[SAE] = []
    norms: set[nn.Module] = set()
    for dictionary in dictionaries:
        DictionarySet((dictionary,)).check_fits(width, len(layout.blocks))
        if isinstance(dictionary, SAE) and dictionary.site.startswith(("resid", "embed")):
            in_stream.append(dictionary)
            continue
        for layer in sorted({at for source in dictionary.layers for at in dictionary.written(source)}):
            writer = writer_of(layout, dictionary, layer)
            if writer.key in at_writers:
                raise ValueError(f"two dictionaries stand for the write of {writer.key}; pass one of them")
            at_writers[writer.key] = dictionary
            if dictionary.reads in ("resid_mid", "mlp_in_normalized") and writer.norm is not None:
                norms.add(writer.norm)
    return Features(at_writers, _only(in_stream), frozenset(norms))


def _only(in_stream: list[SAE]) -> SAE | None:
    """The residual SAE, if it is one that a ledger has a place for."""
    if len(in_stream) > 1:
        layers = ", ".join(f"{sae.layer}.{sae.site}" for sae in in_stream)
        raise NotImplementedError(
            f"residual dictionaries at {layers} each stand for the whole stream and cannot share a ledger; pass one, "
            f"e.g. dictionary[{in_stream[-1].layer}]"
        )
    for sae in in_stream:
        if sae.site not in ("resid_pre", "resid_post"):
            raise NotImplementedError(
                f"a ledger of a {sae.site} dictionary is not offered; use one at resid_pre or resid_post"
            )
    return in_stream[0] if in_stream else None


def writer_of(layout: Layout, dictionary: Dictionary, layer: int) -> Writer:
    """The writer that a dictionary stands for at a layer; for a resid_mid SAE the one that reads there.

    Raises:
        ValueError: heads that put out another width than an attn_z SAE reads.
        NotImplementedError: a layer without such a writer, or without the norm that is read behind.
    """
    wanted = "attn" if dictionary.writes.startswith("attn") else "mlp"
    writers = {writer.name: writer for writer in layout.of(layer)}
    if wanted not in writers:
        raise NotImplementedError(
            f"a dictionary at {dictionary.writes} needs a single {wanted} write in layer {layer}, which holds "
            f"{', '.join(writers)}"
        )
    writer = writers[wanted]
    if dictionary.writes == "attn_z" and (channels := input_width(writer.write)) != (
        d := dictionary.bias_of(layer).shape[0]
    ):
        raise ValueError(f"the dictionary reads vectors of width {d}; the heads of layer {layer} put out {channels}")
    if dictionary.reads == "mlp_in_normalized" and writer.norm is None:
        raise NotImplementedError(f"the dictionary reads behind a norm; the MLP of layer {layer} has none before it")
    return writer
