"""The sites of a run, from what a user names: decomposed matrices, dictionaries, units of the model's own.

    ParameterComponents       every matrix they decompose
    a dictionary or a set     transcoders at the MLPs they stand for, SAEs at their sites
    "attn.head"               heads; as targets only with a covector (`HeadReads`)
    "mlp.neuron"              neurons
    "attn", "mlp", "ssm"      whole sublayers

Token embeddings and logits are always sites. What is not named is live: edges run through it. Each place is taken
once. Cost: a few forward passes of a few tokens. Knows nothing of data.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.dictionaries import Dictionary
from whence.components.lazy import whole
from whence.components.parameters import ParameterComponents, Part
from whence.components.sae import SAE
from whence.components.sets import DictionarySet, as_dictionary_set
from whence.components.sites import place_name
from whence.components.transcoder import Transcoder
from whence.engine.dataset.block_sites import InsideSite, WholeSite
from whence.engine.dataset.ends import EmbeddingSite, OutputSite
from whence.engine.dataset.feature_site import FeatureSite
from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.sites import FIRST, Elsewhere, Inside, Inner, Reading, Site, StreamRead, StreamWrite
from whence.errors import UnsupportedModelError
from whence.model.linear import constant_of, matrix_of, width_into
from whence.model.matrices import LinearMap, matrices, matrix_at
from whence.model.model import Model
from whence.model.sites import read_site, site_of
from whence.model.sublayers import Sublayer, sublayers_of
from whence.results.keys import Node

NATIVE = ("attn.head", "mlp.neuron", "attn", "mlp", "ssm")
_ENDS: Mapping[str, Inner] = {"attn.q": "q", "attn.k": "k", "attn.v": "v", "attn_fused.qkv": "qkv"}
_LAST = ("attn.o", "attn_fused.o", "glu.down", "mlp.down")


@dataclass(frozen=True, eq=False)
class HeadReads:
    """Heads as targets: what a covector makes of a head's query, key or value, before any rotation.

    Args:
        covectors: By key, such as "3.attn.head:1.q": a vector of the head's width.

    Example:
        >>> HeadReads({"1.attn.head:0.q": torch.ones(32)}).keys
        ('1.attn.head:0.q',)
    """

    covectors: Mapping[str, Float[Tensor, " d_head"]]

    @property
    def keys(self) -> tuple[str, ...]:
        """The heads' inputs that are targets."""
        return tuple(self.covectors)

    def describe(self) -> dict[str, Any]:
        """For a result's settings."""
        return {"kind": "head_reads", "covectors": {key: one.tolist() for key, one in self.covectors.items()}}


@dataclass(frozen=True, eq=False)
class Given:
    """What a user named, sorted out."""

    parameters: ParameterComponents | None
    sets: tuple[DictionarySet, ...]
    names: tuple[str, ...]
    heads: HeadReads

    def describe(self) -> list[Any]:
        """What a result records of it, in JSON's types."""
        reads = [self.heads.describe()] if self.heads.covectors else []
        parameters = [] if self.parameters is None else [self.parameters.describe()]
        return [*parameters, *(one.describe() for one in self.sets), *self.names, *reads]


def sorted_out(components: Any) -> Given:
    """Parameter components, dictionaries and names among what was given.

    Raises:
        TypeError: something else.
        ValueError: an unknown name, or two sets of parameter components.
    """
    single = isinstance(components, str | DictionarySet | SAE | Transcoder | ParameterComponents | HeadReads)
    several: list[Any] = [components] if single or not isinstance(components, Iterable) else list(components)
    names = [one for one in several if isinstance(one, str)]
    unknown = next((name for name in names if name not in NATIVE), None)
    if unknown is not None:
        raise ValueError(f"components= names {unknown!r}; units of the model's own are {', '.join(NATIVE)}")
    parameters = [one for one in several if isinstance(one, ParameterComponents)]
    if len(parameters) > 1:
        raise ValueError("components= holds two sets of parameter components; a matrix can be decomposed in one way")
    heads: dict[str, Tensor] = {}
    for one in several:
        if isinstance(one, HeadReads):
            heads |= one.covectors
    rest = [one for one in several if not isinstance(one, str | ParameterComponents | HeadReads)]
    odd = [type(one).__name__ for one in rest if not isinstance(one, SAE | Transcoder | DictionarySet)]
    if odd:
        raise TypeError(
            f"components= holds a {odd[0]}; it takes parameter components (whence.load_components), dictionaries "
            f"(whence.load_dictionary), HeadReads, and the names {', '.join(NATIVE)}"
        )
    return Given(
        parameters[0] if parameters else None, tuple(map(as_dictionary_set, rest)), tuple(names), HeadReads(heads)
    )


@dataclass(frozen=True, eq=False)
class Chosen:
    """The sites of a run, and the sublayers that they stand among.

    Args:
        sites: in the order of the forward pass.
        entries: when each sublayer of the model reads the stream.
        gated: the MLPs that have a gate.
    """

    sites: tuple[Site, ...]
    entries: Mapping[Sublayer, int]
    gated: frozenset[Sublayer]


def sites_of(model: Model, given: Given, seen: Int[Tensor, " token"], output_tokens: Int[Tensor, " token"]) -> Chosen:
    """The sites of a run.

    Args:
        model: the model.
        given: what was named.
        seen: token ids that occur in the data.
        output_tokens: tokens whose logits are targets of every metric.

    Raises:
        ValueError: two for one place, or a layer or matrix that the model lacks.
        UnsupportedModelError: a model that is no sum of sublayers.
    """
    chooser = _Chooser(model, output_tokens)
    if given.parameters is not None:
        for part in given.parameters:
            chooser.matrix(part)
    for found in given.sets:
        found.check_fits(model.d_model, model.n_layers)
        for one in found.to(model.device):
            chooser.dictionary(one)
    for name in given.names:
        chooser.native(name, given.heads)
    if given.heads.covectors and "attn.head" not in given.names:
        raise ValueError("components= holds HeadReads without 'attn.head'; heads are sites together or not at all")
    return chooser.finish(seen.to(model.device))


class _Chooser:
    """Sites, each place taken once."""

    def __init__(self, model: Model, tokens: Tensor) -> None:
        self.model, self.layout, self.tokens = model, model.layout, tokens.to(model.device)
        self.like = torch.zeros((), dtype=model.accumulation, device=model.device)
        self.sublayers = sublayers_of(model.layout, model._embedded_tokens())
        stages = sorted({(one.layer, one.stage) for one in self.sublayers})
        self.depth = {one: stages.index((one.layer, one.stage)) for one in self.sublayers}
        self.end = len(stages)
        self.taken: dict[Any, str] = {}
        self.sites: list[tuple[int, Site]] = []

    # ------------------------------------------------------------ places
    def entry(self, sublayer: Sublayer) -> StreamRead:
        return StreamRead(4 * self.depth[sublayer] + 2, sublayer.norm, sublayer.entered)

    def exit(self, sublayer: Sublayer, depth: Any) -> StreamWrite:
        return StreamWrite(4 * self.depth[sublayer] + 3, sublayer, depth)

    def final(self) -> StreamRead:
        return StreamRead(4 * self.end + 2, self.layout.final_norm)

    def sublayer(self, layer: int | None, kind: str) -> Sublayer:
        for one in self.sublayers:
            if one.layer == layer and one.kind == kind:
                return one
        raise ValueError(f"{self.model.name} has no {kind} sublayer in layer {layer}")

    def take(self, what: Any, name: str, time: int, site: Site) -> None:
        if what in self.taken:
            raise ValueError(
                f"components= says twice what stands at one place: {self.taken[what]} and {name}. Drop one."
            )
        self.taken[what] = name
        self.sites.append((time, site))

    # ------------------------------------------------------------ parameter components
    def matrix(self, part: Part) -> None:
        found = matrix_at(self.layout, part.site)
        self._fits(part, found)
        if found.layer is None:
            reads: Any = self.final() if found.name == "output.matrix" else Elsewhere(FIRST, self.sublayers[0])
            writes = None if found.name == "output.matrix" else StreamWrite(FIRST)
            time = FIRST if writes is not None else 4 * self.end + 2
            self.take(part.site, part.site, time, MatrixSite(part, found, reads, writes, None, self.like))
            return
        sublayer = self.sublayer(found.layer, "attn" if found.name.startswith("attn") else "mlp")
        last = found.name in _LAST
        if last:
            end: Inner = "z" if sublayer.kind == "attn" else "hidden"
            site = MatrixSite(part, found, Inside(sublayer, end), self.exit(sublayer, "write"), sublayer, self.like)
            self.take(sublayer, part.site, 4 * self.depth[sublayer] + 3, site)
            return
        end = _ENDS.get(found.name) or ("gate" if found.name == "glu.gate" else "up")
        site = MatrixSite(part, found, self.entry(sublayer), Inside(sublayer, end), None, self.like)
        self.take((sublayer, end), part.site, 4 * self.depth[sublayer] + 2, site)

    def _fits(self, part: Part, found: LinearMap) -> None:
        own = matrix_of(found.module, *self._sizes(part, found), self.like) if found.name != "embed.matrix" else None
        shape = tuple(found.module.weight.T.shape[::-1]) if own is None else tuple(own.shape[::-1])  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        if shape != (part.V.shape[0], part.U.shape[1]):
            raise ValueError(
                f"{part.site}: V and U decompose a map from {part.V.shape[0]} to {part.U.shape[1]} channels; the model's "
                f"goes from {shape[0]} to {shape[1]}. Are these components for another model?"
            )

    def _sizes(self, part: Part, found: LinearMap) -> tuple[int, int]:
        return part.U.shape[1], width_into(found.module, part.site)

    # ------------------------------------------------------------ dictionaries
    def dictionary(self, one: Dictionary) -> None:
        if isinstance(one, Transcoder):
            sublayer, place = self.sublayer(one.layer, "mlp"), f"{one.layer}.mlp"
            write = site_of(self.layout, "mlp_out_normed" if one.writes.endswith("_normed") else "mlp_out", one.layer)
            depth = "normed" if one.writes.endswith("_normed") else "out"
            reads = self._transcoder_reads(one, sublayer)
            self._features(one, place, reads, read_site(self.layout, one.reads, one.layer), write, sublayer, depth)
        elif isinstance(one, SAE):
            self._sae(one)
        else:
            raise ValueError(
                f"a {one.kind} writes at several layers, and dataset attributions ask for one place a feature; "
                "attribution_graph takes it, or pass transcoders or SAEs here"
            )

    def _transcoder_reads(self, one: Transcoder, sublayer: Sublayer) -> StreamRead | Elsewhere:
        if one.reads == "mlp_in":
            return self.entry(sublayer)
        time = 4 * self.depth[sublayer] + 2
        return StreamRead(time) if one.reads == "resid_mid" else Elsewhere(time, sublayer)

    def _sae(self, one: SAE) -> None:
        place, name = f"{one.layer}.{place_name(one)}", one.reads
        site = site_of(self.layout, name, one.layer)
        if name.startswith("resid"):
            time = 4 * self._point(name, one.layer)
            write = StreamWrite(time + 1, cuts=True)
            bias, U = one.b_dec.to(self.like), whole(one.W_dec).to(self.like)
            encoder = one.encoder_of(one.layer)
            found = FeatureSite(place, encoder, U, bias, site, site, StreamRead(time), write, None)
            self.take(time, place, time, found)
            return
        sublayer = self.sublayer(one.layer, name.partition("_")[0])
        if name == "attn_z":
            writer = site_of(self.layout, "attn_out", one.layer)
            self._features(one, place, Inside(sublayer, "z"), site, writer, sublayer, "write")
            return
        reads = Elsewhere(4 * self.depth[sublayer] + 2, sublayer)
        depth = "normed" if name.endswith("_normed") else ("write" if name == "attn_out" else "out")
        self._features(one, place, reads, site, site, sublayer, depth)

    def _point(self, name: str, layer: int) -> int:
        depths = sorted({self.depth[one] for one in self.sublayers if one.layer == layer})
        return {"resid_pre": depths[0], "resid_mid": depths[-1], "resid_post": depths[-1] + 1}[name]

    def _features(
        self, one: Any, place: str, reads: Any, read: Any, write: Any, sublayer: Sublayer, depth: Any
    ) -> None:
        U, bias = whole(one.W_dec).to(self.like), one.b_dec.to(self.like)
        if depth == "write" and one.reads == "attn_z":
            assert sublayer.write is not None
            weight = matrix_of(sublayer.write, self.model.d_model, U.shape[1], self.like)
            own = constant_of(sublayer.write, U.shape[1], self.like)
            U, bias = U @ weight.T, bias @ weight.T + (0.0 if own is None else own)
        exit_ = self.exit(sublayer, depth)
        found = FeatureSite(place, one.encoder_of(one.layer), U, bias, read, write, reads, exit_, sublayer)
        self.take(sublayer, place, 4 * self.depth[sublayer] + 3, found)

    # ------------------------------------------------------------ the model's own
    def native(self, name: str, heads: HeadReads) -> None:
        kind = name.partition(".")[0]
        found = [one for one in self.sublayers if one.kind == kind]
        if not found:
            raise ValueError(f"{self.model.name} has no {kind} sublayer, so there are no units {name!r}")
        for sublayer in found:
            time, write = 4 * self.depth[sublayer] + 3, self.exit(sublayer, "normed" if name == kind else "write")
            site: Site
            if name == kind:
                site = WholeSite(sublayer, write, self.model.device)
            else:
                site = self._inside(sublayer, write, heads if name == "attn.head" else None)
            self.take(sublayer, f"{sublayer.layer}.{name}", time, site)

    def _inside(self, sublayer: Sublayer, write: StreamWrite, heads: HeadReads | None) -> InsideSite:
        if sublayer.write is None:
            raise UnsupportedModelError(
                f"{sublayer.key} is a mixture of experts, so it has no one set of neurons; take the whole of it, 'mlp'"
            )
        width = width_into(sublayer.write, sublayer.key)
        weight = matrix_of(sublayer.write, self.model.d_model, width, self.like)
        if heads is None:
            readings, modules = self._neuron_readings(sublayer, width)
            return InsideSite(sublayer, write, readings, modules, weight, None, {})
        readings, modules, covectors = self._head_readings(sublayer, heads)
        return InsideSite(sublayer, write, readings, modules, weight, sublayer.heads or 1, covectors)

    def _neuron_readings(self, sublayer: Sublayer, width: int) -> tuple[tuple[Reading, ...], dict[str, Any]]:
        found: list[Reading] = []
        modules: dict[str, Any] = {}
        for name in ("glu.gate", "glu.up", "mlp.up"):
            one = matrices(self.layout).get(f"{sublayer.layer}.{name}")
            if one is None:
                continue
            end = f".{name.removeprefix('glu.')}" if name.startswith("glu") else ""
            site = f"{sublayer.layer}.mlp.neuron{end}"
            V = matrix_of(one.module, width, width_into(one.module, one.site), self.like)
            constant = constant_of(one.module, V.shape[1], self.like)
            ids = torch.arange(width, device=self.like.device)
            found.append(Reading(site, ids, width, self.entry(sublayer), V, constant))
            modules[site] = one.module
        return tuple(found), modules

    def _head_readings(
        self, sublayer: Sublayer, heads: HeadReads
    ) -> tuple[tuple[Reading, ...], dict[str, Any], dict[str, Tensor]]:
        found: list[Reading] = []
        modules: dict[str, Any] = {}
        covectors: dict[str, Tensor] = {}
        for end in "qkv":
            mine = [(n, c) for n, c in self._asked(heads) if n.layer == sublayer.layer and n.end == end]
            if not mine:
                continue
            one = matrix_at(self.layout, f"{sublayer.layer}.attn.{end}")
            site = f"{sublayer.layer}.attn.head.{end}"
            into = width_into(one.module, one.site)
            outputs = int(getattr(one.module, "out_features", 0)) or int(one.module.weight.shape[1])  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue, reportIndexIssue]
            rows = self._covectors(sublayer, mine, outputs)
            V = rows @ matrix_of(one.module, outputs, into, self.like)
            bias = constant_of(one.module, into, self.like)
            ids = torch.tensor([n.index for n, _ in mine], device=self.like.device)
            constant = None if bias is None else rows @ bias
            found.append(Reading(site, ids, sublayer.heads or 1, self.entry(sublayer), V, constant))
            modules[site], covectors[site] = one.module, rows
        return tuple(found), modules, covectors

    def _asked(self, heads: HeadReads) -> Sequence[tuple[Node, Tensor]]:
        nodes = [(Node.parse(key), one) for key, one in heads.covectors.items()]
        for node, _ in nodes:
            if node.name != "attn.head" or node.end not in ("q", "k", "v"):
                raise ValueError(f"HeadReads: {node} is no input of a head; name its end, such as '3.attn.head:1.q'")
        return sorted(nodes, key=lambda pair: str(pair[0]))

    def _covectors(self, sublayer: Sublayer, mine: Sequence[tuple[Node, Tensor]], outputs: int) -> Tensor:
        """Each covector at its head's place among a module's outputs; heads share a group's key and value."""
        assert sublayer.write is not None
        width = width_into(sublayer.write, sublayer.key) // (sublayer.heads or 1)
        rows = self.like.new_zeros(len(mine), outputs // width, width)
        for row, (node, covector) in enumerate(mine):
            assert isinstance(node.index, int)
            if covector.shape != (width,) or node.index >= (sublayer.heads or 1):
                raise ValueError(
                    f"HeadReads: {node} has a covector of shape {tuple(covector.shape)}; {self.model.name} has "
                    f"{sublayer.heads} heads of width {width} there"
                )
            rows[row, node.index * (outputs // width) // (sublayer.heads or 1)] = covector.to(self.like)
        return rows.flatten(1)

    # ------------------------------------------------------------ both ends
    def finish(self, seen: Tensor) -> Chosen:
        whole_embedding = "embed.matrix" not in self.taken
        ends: list[tuple[int, Site]] = [(FIRST, EmbeddingSite(self.layout, seen, whole_embedding))]
        rows = self.model.unembedding(self.tokens).to(self.like)
        bias = self.model.unembedding_bias(self.tokens).to(self.like)
        output = OutputSite(
            self.layout,
            self.final(),
            self.tokens,
            rows,
            bias if bool(bias.any()) else None,
            self.model.vocab_size,
            self.model.d_model,
            "output.matrix" not in self.taken,
        )
        ends.append((4 * self.end + 3, output))
        sites = tuple(site for _, site in sorted([*self.sites, *ends], key=lambda pair: pair[0]))
        gates = {one.layer for one in matrices(self.layout).values() if one.name == "glu.gate"}
        gated = frozenset(one for one in self.sublayers if one.kind == "mlp" and one.layer in gates)
        return Chosen(sites, {one: 4 * depth + 2 for one, depth in self.depth.items()}, gated)
