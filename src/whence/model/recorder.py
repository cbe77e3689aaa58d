"""Run a model once and record what was asked for.

Writes are handed over one by one as the forward pass goes, so that a job may use them and let them go; a job that needs
them later keeps them. The logits are computed at the rows that are wanted: a hook gathers them before the output
embedding, so softcaps and scales are the model's own.

Cost: one forward pass; memory of what is kept. Knows nothing of targets or scores.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.attention import Attention, AttentionTape, tapped
from whence.model.batch import Batch
from whence.model.hooks import After, Before, first_tensor, hooked, main_output, replace_first
from whence.model.layout import Layout, Writer
from whence.model.norms import probe_norm
from whence.model.trace import Around, Routed, Trace, Wanted, Write


def record(
    layout: Layout,
    batch: Batch,
    rows: Int[Tensor, "example asked"],
    *,
    keep: Int[Tensor, "example kept"] | None = None,
    wanted: Wanted | None = None,
    on_write: Callable[[Write], None] | None = None,
) -> Trace:
    """The trace of one forward pass over a batch.

    Args:
        layout: the model.
        batch: prompts, padded on the right; padding is masked.
        rows: positions to look at; a negative one marks a row that is not there and is read as position 0.
        keep: positions to compute logits at; the rows asked for if None.
        wanted: what else to record.
        on_write: takes each write as it happens; the trace then keeps none. None: the trace keeps them all.

    Raises:
        ValueError: the model is in training mode, or a prompt is longer than its learned positions.
        UnsupportedModelError: a module of the layout was never called.
        NotImplementedError: attention patterns cannot be read.
    """
    wanted = wanted or Wanted()
    _refuse_unless_runnable(layout, batch)
    kept: list[Write] = []
    recorder = _Recorder(layout, batch, rows.clamp_min(0), wanted, on_write or kept.append, keeping=on_write is None)
    attention = tuple(writer.module for writer in layout.attention)
    with (
        layout.lock,
        torch.no_grad(),
        hooked(recorder.after(), recorder.before((rows if keep is None else keep).clamp_min(0))),
    ):
        if wanted.attention and attention:
            how = layout.architecture.patterns
            if how is None:
                raise NotImplementedError(f"{type(layout.hf).__name__}: its attention patterns cannot be read")
            tape = AttentionTape("record", on_attention=recorder.take_attention)
            with tapped(layout.hf, attention, how, tape):
                logits = run(layout, batch)
        else:
            logits = run(layout, batch)
    return recorder.trace(logits, tuple(kept))


def _refuse_unless_runnable(layout: Layout, batch: Batch) -> None:
    if layout.hf.training:
        raise ValueError(f"{type(layout.hf).__name__} is in training mode, where dropout is active; call .eval() on it")
    rows = getattr(layout.position, "num_embeddings", None)
    if not isinstance(rows, int):
        return
    rows -= getattr(layout.position, "offset", 0)  # OPT's first rows stand for no position
    if batch.ids.shape[1] > rows:
        raise ValueError(f"a prompt of {batch.ids.shape[1]} tokens is longer than the model's {rows} positions")


def run(layout: Layout, batch: Batch) -> Float[Tensor, "example pos vocab"]:
    """The model's own logits; no cache, padding masked."""
    mask = batch.mask.long() if batch.ragged else None
    return layout.hf(input_ids=batch.ids, attention_mask=mask, use_cache=False).logits


class _Recorder:
    """Collects the parts of each write until it is whole, then hands it over."""

    def __init__(
        self,
        layout: Layout,
        batch: Batch,
        rows: Tensor,
        wanted: Wanted,
        on_write: Callable[[Write], None],
        keeping: bool,
    ) -> None:
        self.keeping = keeping
        self.layout, self.batch, self.rows, self.wanted, self.on_write = layout, batch, rows, wanted, on_write
        everything = torch.arange(batch.ids.shape[1], device=rows.device).expand_as(batch.ids)
        self.whole = rows.shape == batch.ids.shape and bool((rows == everything).all())
        self.parts: dict[Writer, dict[str, Any]] = {writer: {} for writer in layout.writers if wanted.writes}
        self.attention: dict[int, Attention] = {}
        self.single: dict[str, Any] = {}
        self.streams: dict[int, Tensor] = {}
        self.scales: dict[nn.Module, Tensor] = {}
        self.modules: dict[nn.Module, Around] = {}
        self.by_attention = {writer.module: writer for writer in layout.attention}

    def take(self, tensor: Tensor, *, passing: bool = False) -> Tensor:
        """The asked rows of [example, pos, ...], which a module may have seen flattened to [example * pos, ...].

        A copy, since blocks may go on to add to a tensor in place; unless it is used at once (`passing`).
        """
        examples, length = self.batch.ids.shape
        if tensor.shape[:2] != (examples, length):
            tensor = tensor.reshape(-1, length, *tensor.shape[-1:])
        if self.whole and tensor.shape[0] == examples:
            return tensor if passing else tensor.clone()
        rows = self.rows.to(tensor.device)
        if tensor.shape[0] != examples:  # one embedding of positions for the whole batch
            tensor = tensor.expand(examples, *tensor.shape[1:])
        return tensor[torch.arange(examples, device=tensor.device)[:, None], rows]

    # ------------------------------------------------------------ hooks
    def before(self, keep: Tensor) -> list[tuple[nn.Module, Before]]:
        def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.single["embedding"] = self.take(first_tensor(args, kwargs))

        def gather(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = first_tensor(args, kwargs)
            kept = hidden[torch.arange(len(hidden), device=hidden.device)[:, None], keep.to(hidden.device)]
            return replace_first(args, kwargs, kept)

        return [(self.layout.blocks[0], stream), (self.layout.head, gather)]

    def after(self) -> list[tuple[nn.Module, After]]:
        layout, wanted = self.layout, self.wanted

        def final(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self.single["final"] = self.around(args, kwargs, output)

        def raw(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self.single["raw"] = output

        hooks: list[tuple[nn.Module, After]] = [(layout.final_norm, final), (layout.head, raw)]
        hooks += [(module, self.around_taker(module)) for module in wanted.around]
        if layout.position is not None:
            hooks.append((layout.position, lambda _, __, output: self.single.update(position=self.take(output))))
        for writer in self.parts:
            for part, module in self.needed(writer).items():
                hooks.append((module, self.taker(writer, part)))
        for layer in wanted.streams:
            hooks.append((layout.blocks[layer], self.stream_taker(layer)))
        if wanted.scales:
            norms = [norm for w in layout.writers for norm in (w.norm, w.post_norm) if norm is not None]
            hooks += [(norm, self.scale_taker(norm)) for norm in dict.fromkeys(norms)]
        return hooks

    def needed(self, writer: Writer) -> dict[str, nn.Module]:
        """The modules whose calls make up a write; attention reports itself."""
        parts = {"write": writer.write, "post_norm": writer.post_norm, "shared_gate": writer.shared_gate}
        if self.wanted.sublayers:
            parts["sublayer"] = writer.entrance
        return {name: module for name, module in parts.items() if module is not None}

    def taker(self, writer: Writer, part: str) -> After:
        def take(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if part == "write" and writer.name == "moe":
                self.parts[writer]["output"] = self.take(main_output(output))
                value: Any = self.routed(args, kwargs)
            elif part == "shared_gate":
                value = self.take(output).sigmoid()
            else:
                value = self.around(args, kwargs, output, passing=not self.keeping and len(self.needed(writer)) == 1)
            self.complete(writer, part, value)

        return take

    def take_attention(self, module: nn.Module, attention: Attention) -> None:
        pattern = attention.pattern
        if not self.whole:
            examples = torch.arange(len(pattern), device=pattern.device)[:, None]
            pattern = pattern.transpose(1, 2)[examples, self.rows.to(pattern.device)].transpose(1, 2)
        writer, seen = self.by_attention[module], Attention(pattern, attention.value)
        if writer in self.parts:
            self.parts[writer]["attention"] = seen
        if self.keeping:
            self.attention[writer.layer] = seen

    def stream_taker(self, layer: int) -> After:
        return lambda _, __, output: self.streams.update({layer: self.take(main_output(output))})

    def around_taker(self, module: nn.Module) -> After:
        return lambda args, kwargs, output: self.modules.update({module: self.around(args, kwargs, output)})

    def scale_taker(self, norm: nn.Module) -> After:
        def take(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x, y = self.take(first_tensor(args, kwargs)), self.take(main_output(output))
            self.scales[norm] = probe_norm(norm, x.shape[-1]).inverse_scale(x, y)

        return take

    # ------------------------------------------------------------ assembly
    def around(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, *, passing: bool = False) -> Around:
        before, after = first_tensor(args, kwargs), main_output(output)
        return Around(self.take(before, passing=passing), self.take(after, passing=passing))

    def routed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Routed:
        hidden, index, weight = (self.take(t).flatten(0, 1) for t in (*args, *kwargs.values())[:3])
        if index.is_floating_point():  # the order of the two arguments differs between families
            index, weight = weight, index
        if weight.shape != index.shape:  # weights of every expert rather than of the chosen ones
            weight = weight.gather(1, index)
        return Routed(hidden, index, weight)

    def complete(self, writer: Writer, part: str, value: Any) -> None:
        parts = self.parts[writer]
        parts[part] = value
        if not self.needed(writer).keys() <= parts.keys():
            return
        routed = writer.name == "moe"
        self.on_write(
            Write(
                writer,
                input=parts["write"] if routed else parts["write"].input,
                output=parts["output"] if routed else parts["write"].output,
                post_norm=parts.get("post_norm"),
                shared_gate=parts.get("shared_gate"),
                attention=parts.get("attention"),
                sublayer=parts.get("sublayer"),
            )
        )
        parts.clear()
        parts["done"] = True

    def trace(self, logits: Tensor, writes: tuple[Write, ...]) -> Trace:
        silent = [writer.key for writer, parts in self.parts.items() if "done" not in parts]
        if silent or "final" not in self.single or "embedding" not in self.single:
            raise UnsupportedModelError(
                f"{type(self.layout.hf).__name__}: {', '.join(silent) or 'the final norm or the first block'} was "
                "never called during the forward pass (a fused kernel may read its weights directly); load the model "
                "with its plain PyTorch implementation."
            )
        embedding, position = self.single["embedding"], self.single.get("position")
        return Trace(
            batch=self.batch,
            rows=self.rows,
            embedding=embedding if position is None else embedding - position,
            position=position,
            final=self.single["final"],
            logits=logits,
            raw=self.single["raw"],
            writes=writes,
            attention=self.attention,
            streams=self.streams,
            scales=self.scales,
            around=self.modules,
        )
