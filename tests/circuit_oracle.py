"""Slow, obvious answers about circuits: forward passes of the whole model with module outputs clamped by hooks.

Knows the module names of a few families and nothing of how whence finds effects or edges. A unit's edge is a derivative
of a formula: the numbers below of the target, everything else clamped, along what the source's difference writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from circuit_parts import Part

Metric = Callable[[Tensor], Tensor]  # logits [example, vocab] -> [example]
Vectors = dict[str, tuple[Tensor, Tensor]]  # by part: its vector, and what its features read
Edit = Callable[[Part, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class Oracle:
    """A model whose parts are read and replaced by hooks."""

    hf: Any
    parts: tuple[Part, ...]
    metric: Metric

    def run(self, ids: Tensor, edit: Edit, read: Callable[[Part, Tensor], None] = lambda *_: None) -> Tensor:
        """The metric; `edit` may replace what passes a part, `read` is told what its features read."""
        handles: list[Any] = []
        for part in self.parts:
            if part.reads is not None:
                handles.append(
                    part.reads.register_forward_hook(
                        lambda _, args, out, part=part: read(part, part.reading(args[0], out))
                    )
                )
            handles.append(_hook(part, edit))
        try:
            return self.metric(self.hf(ids, use_cache=False).logits[:, -1])
        finally:
            for handle in handles:
                handle.remove()

    def arriving(self, ids: Tensor, edit: Edit) -> tuple[Vectors, Tensor]:
        """What arrives at every part (before `edit` replaces it), and the metric."""
        own: dict[str, Tensor] = {}
        read: dict[str, Tensor] = {}

        def seen(part: Part, x: Tensor) -> Tensor | None:
            own[part.key] = x
            return edit(part, x)

        metric = self.run(ids, seen, lambda part, x: read.update({part.key: x}))
        return {key: (x, read.get(key, x)) for key, x in own.items()}, metric

    @torch.no_grad()
    def values(self, ids: Tensor) -> Vectors:
        """Every part's vectors."""
        found, _ = self.arriving(ids, lambda _, x: x.clone())
        return {key: (own.clone(), read.clone()) for key, (own, read) in found.items()}

    def gradients(self, ids: Tensor) -> dict[str, Tensor]:
        """The metric's derivative by every part's vector, the whole model live."""
        leaves = {key: torch.zeros_like(x).requires_grad_() for key, (x, _) in self.values(ids).items()}
        metric = self.run(ids, lambda part, x: x + leaves[part.key])
        return dict(zip(leaves, torch.autograd.grad(metric.sum(), list(leaves.values())), strict=True))

    def patched(self, ids: Tensor, key: str, value: Tensor) -> Tensor:
        """The metric when one part says something else."""
        with torch.no_grad():
            return self.run(ids, lambda part, x: value if part.key == key else None)

    def numbers(
        self, ids: Tensor, source: str, target: str | None, held: set[str], at: Vectors | None = None
    ) -> Callable[[Tensor], Tensor]:
        """[example, pos * unit] of a target (the metric for None) as a function of the source's vector.

        The parts in `held` say what they say on these prompts, or what they say in `at`.
        """
        clean = self.values(ids) if at is None else at
        gradient = self.gradients(ids)

        def numbers(x: Tensor) -> Tensor:
            edit = lambda part, _: x if part.key == source else clean[part.key][0] if part.key in held else None  # noqa: E731
            found, metric = self.arriving(ids, edit)
            if target is None:
                return metric[:, None]
            part = next(one for one in self.parts if one.key == target)
            return part.split.numbers(*found[target], gradient[target]).flatten(1)

        return numbers

    def moves(self, ids: Tensor, other: Tensor, source: str) -> Tensor:
        """[example, pos, unit, d]: what each unit's difference between two prompts writes."""
        clean, patch = self.values(ids)[source], self.values(other)[source]
        return next(one for one in self.parts if one.key == source).split.moves(clean, patch)

    def edges(self, ids: Tensor, other: Tensor, source: str, target: str | None, at: Vectors | None = None) -> Tensor:
        """[example, target pos * unit, pos, unit]: direct edges by a dense Jacobian, all other parts held."""
        numbers = self.numbers(ids, source, target, {part.key for part in self.parts} - {source, target}, at)
        x = (self.values(ids) if at is None else at)[source][0].clone().requires_grad_()
        out = numbers(x).sum(0)  # examples never meet
        if not out.requires_grad:
            back = x.new_zeros(len(out), *x.shape)
        else:
            eye = torch.eye(len(out), dtype=x.dtype)
            found = torch.autograd.grad(out, x, eye, is_grads_batched=True, allow_unused=True)[0]
            back = x.new_zeros(len(out), *x.shape) if found is None else found
        return torch.einsum("tbsd,bsud->btsu", back, self.moves(ids, other, source))


def _hook(part: Part, edit: Edit) -> Any:
    def before(_: nn.Module, args: Any) -> Any:
        new = edit(part, args[0])
        return None if new is None else (new, *args[1:])

    def after(_: nn.Module, __: Any, out: Any) -> Any:
        new = edit(part, out[0] if isinstance(out, tuple) else out)
        return None if new is None else (new, *out[1:]) if isinstance(out, tuple) else new

    return part.module.register_forward_pre_hook(before) if part.before else part.module.register_forward_hook(after)
