"""A family's entry bound to one model: its modules, its writers in the order they write, its constants.

Nothing is computed here; what the layout claims is checked in selfcheck.py.
"""

from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Literal

from torch import nn

from whence.errors import UnsupportedModelError
from whence.model.architectures import Architecture, Sublayer

WriterName = Literal["attn", "mlp", "moe", "moe.shared", "ssm"]


@dataclass(frozen=True, eq=False)
class Writer:
    """The last linear map of one sublayer (or its experts), what stands between it and the stream, and its place."""

    name: WriterName
    layer: int
    stage: int
    write: nn.Module  # a linear map, or a container of experts
    module: nn.Module  # the whole sublayer
    norm: nn.Module | None
    post_norm: nn.Module | None
    multiplier: float
    heads: int | None
    up: nn.Module | None
    gate: nn.Module | None
    shared_gate: nn.Module | None = None  # of a shared expert: a linear map whose sigmoid scales the write

    @property
    def key(self) -> str:
        """The node key of everything this writer adds to the stream."""
        return f"{self.layer}.{self.name}"

    @property
    def entrance(self) -> nn.Module:
        """The module given what the sublayer reads; its first map, where a family has no module for the whole (OPT)."""
        return self.up if self.module is self.write and self.up is not None else self.module


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything is."""

    hf: Any  # the transformers model
    architecture: Architecture
    embedding: nn.Module
    position: nn.Module | None
    blocks: tuple[nn.Module, ...]
    writers: tuple[Writer, ...]  # in the order they write
    final_norm: nn.Module
    head: nn.Module
    logit_scale: float
    softcap: float | None
    # One forward pass at a time: hooks and the attention implementation belong to the whole model.
    lock: Any = field(default_factory=RLock, repr=False)

    def of(self, layer: int) -> tuple[Writer, ...]:
        """The writers of one layer."""
        return tuple(writer for writer in self.writers if writer.layer == layer)

    @property
    def attention(self) -> tuple[Writer, ...]:
        """The attention writers, in order."""
        return tuple(writer for writer in self.writers if writer.name == "attn")


def find(root: nn.Module, path: str | None) -> nn.Module | None:
    """The module at the first of these alternative paths that exists, if any."""
    for alternative in (path or "").split("|"):
        module: Any = root
        for part in filter(None, alternative.split(".")):
            module = getattr(module, part, None)
        if alternative and isinstance(module, nn.Module):
            return module
    return None


def require(root: nn.Module, path: str, what: str) -> nn.Module:
    """The module at a path that must exist."""
    module = find(root, path)
    if module is None:
        raise UnsupportedModelError(
            f"{type(root).__name__} has no {what} at {path!r}. Its family's entry in whence.model.architectures does "
            "not fit this model; see docs/adding-a-model.md."
        )
    return module


def bind(hf: Any, architecture: Architecture) -> Layout:
    """The layout of a model under an entry.

    Raises:
        UnsupportedModelError: a path that the model lacks, or a block that writes nothing the entry knows.
    """
    config = hf.config.get_text_config()  # of a model that also sees images, the part that writes text
    head, embedding = hf.get_output_embeddings(), hf.get_input_embeddings()
    if head is None or embedding is None:
        raise UnsupportedModelError(f"{type(hf).__name__} has no output embedding; load it as a causal language model.")
    blocks = require(hf, architecture.blocks, "list of blocks")
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise UnsupportedModelError(f"{architecture.blocks} of {type(hf).__name__} is not a non-empty list of blocks.")
    writers: list[Writer] = []
    for layer, block in enumerate(blocks):
        here = [w for s in architecture.sublayers for w in _writers(s, layer, block, config)]
        if not here:
            raise UnsupportedModelError(
                f"{type(hf).__name__}: block {layer} ({type(block).__name__}) holds none of the writers its family's "
                f"entry names: {', '.join(s.write for s in architecture.sublayers)}. See docs/adding-a-model.md."
            )
        writers += sorted(here, key=lambda writer: writer.stage)
    cap = getattr(config, architecture.softcap, None) if architecture.softcap else None
    return Layout(
        hf=hf,
        architecture=architecture,
        embedding=embedding,
        position=require(hf, architecture.position, "position embedding") if architecture.position else None,
        blocks=tuple(blocks),
        writers=tuple(writers),
        final_norm=require(hf, architecture.final_norm, "final norm"),
        head=head,
        logit_scale=float(architecture.logit_scale(config)) if architecture.logit_scale else 1.0,
        softcap=float(cap) if cap else None,
    )


def _writers(sublayer: Sublayer, layer: int, block: nn.Module, config: Any) -> list[Writer]:
    write = find(block, sublayer.write)
    if write is None:
        return []
    norm = require(block, sublayer.norm, "norm") if sublayer.norm else None
    module = require(block, sublayer.module, "sublayer")
    common: dict[str, Any] = {
        "layer": layer,
        "stage": sublayer.stage(config) if callable(sublayer.stage) else sublayer.stage,
        "module": module,
        "norm": norm,
        "post_norm": require(block, sublayer.post_norm, "post-norm") if sublayer.post_norm else None,
        "multiplier": float(sublayer.multiplier(config)) if sublayer.multiplier else 1.0,
    }
    writer = Writer(
        name=sublayer.kind,
        write=write,
        heads=int(getattr(config, sublayer.heads)) if sublayer.heads else None,
        up=find(block, sublayer.up),
        gate=find(block, sublayer.gate),
        **common,
    )
    shared = find(module, "shared_expert") if sublayer.kind == "moe" else None
    if shared is None:
        return [writer]
    gate = find(module, "shared_expert_gate")
    last = require(shared, "down_proj", "shared expert's last map")
    return [
        writer,
        Writer(name="moe.shared", write=last, heads=None, up=None, gate=None, shared_gate=gate, **common),
    ]
