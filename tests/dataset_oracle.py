"""Slow, obvious dataset attributions: hooks on a Hugging Face model, one backward pass a target at a position.

Each row is run by itself, without padding. Every place of interest is cut: what passes is taken apart into leaves, so
that a gradient is that of the direct path. Of each target at each position every source at each position is kept,

    A[q, t, p, s, w] = c_t[q] dy_t[q]/dx_s[p, w] x_s[p, w] c_s[p]

where a unit has one number w and a vector as many as channels; the metrics are sums over that table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor | None]  # [pos, channel], or ids [pos] of what goes into an embedding
Hooks = list[tuple[nn.Module, bool, Change]]  # module, whether before it, what is done
Cut = Callable[["Run"], Hooks]
Blocks = dict[tuple[str, str], dict[str, Tensor]]


@dataclass(eq=False)
class Run:
    """One row: what is asked of it, and what it left."""

    frozen: bool = True
    deltas: bool = True
    values: dict[str, Tensor] = field(default_factory=dict)  # target site: [pos, target]
    constants: dict[str, Tensor] = field(default_factory=dict)  # what a target's own encoder adds
    leaves: dict[str, Tensor] = field(default_factory=dict)  # source site: [pos, source, channel]
    inputs: dict[str, Tensor] = field(default_factory=dict)  # of matrices

    def leaf(self, site: str, value: Tensor) -> Tensor:
        """The start of a graph of its own."""
        self.leaves[site] = value.detach().clone().requires_grad_()
        return self.leaves[site]

    def vector(self, site: str, value: Tensor) -> Tensor:
        """One vector a token as a leaf."""
        return self.leaf(site, value[:, None])[:, 0]

    def constant(self, site: str, like: Tensor, value: Tensor) -> Tensor:
        """A fixed vector, as how often it is written."""
        return self.leaf(site, like.new_ones(len(like), 1, 1))[:, 0] * value


def matrix(site: str, module: Any, V: Tensor, U: Tensor, ids: Tensor, embeds: bool = False) -> Cut:
    """A decomposed matrix: its components are targets and sources, the rest and the bias sources."""

    def cut(run: Run) -> Hooks:
        def before(x: Tensor) -> None:
            run.inputs[site] = x.detach()
            if not embeds:
                run.values[site] = x @ V[:, ids]

        def after(out: Tensor) -> Tensor:
            a = V[run.inputs[site]][:, ids] if embeds else run.values[site]
            written = run.leaf(site, a[..., None])[..., 0] @ U[ids]
            bias = getattr(module, "bias", None)
            total = written if bias is None else written + run.constant(f"{site}.bias", out, bias.detach())
            return total + run.vector(f"{site}.delta", out - total) if run.deltas else total

        return [(module, True, before), (module, False, after)]

    return cut


def vector(site: str, module: nn.Module) -> Cut:
    """What a module puts out, as one vector a token."""
    return lambda run: [(module, False, lambda out: run.vector(site, out))]


def heads(site: str, module: Any, count: int) -> Cut:
    """What an attention's output map makes of each head."""

    def cut(run: Run) -> Hooks:
        seen: dict[str, Tensor] = {}
        weight, bias = stored(module), getattr(module, "bias", None)

        def after(out: Tensor) -> Tensor:
            parts = torch.einsum(
                "phe,dhe->phd", seen["z"].unflatten(-1, (count, -1)), weight.unflatten(-1, (count, -1))
            )
            total = run.leaf(site, parts).sum(1)
            named = f"{site.removesuffix('.head')}.bias"
            return total if bias is None else total + run.constant(named, out, bias.detach())

        return [(module, True, lambda z: seen.update(z=z)), (module, False, after)]

    return cut


def neurons(site: str, module: Any, bias_name: str) -> Cut:
    """What an MLP's last map is given, channel by channel."""

    def cut(run: Run) -> Hooks:
        seen: dict[str, Tensor] = {}
        weight, bias = stored(module), getattr(module, "bias", None)

        def after(out: Tensor) -> Tensor:
            total = run.leaf(site, seen["h"][..., None])[..., 0] @ weight.T
            return total if bias is None else total + run.constant(bias_name, out, bias.detach())

        return [(module, True, lambda h: seen.update(h=h)), (module, False, after)]

    return cut


def read(site: str, module: nn.Module, rows: Tensor, constant: Tensor | None = None, before: bool = False) -> Cut:
    """Targets that are linear in what passes a module; `constant` is what they read when nothing is written."""

    def cut(run: Run) -> Hooks:
        def look(x: Tensor) -> None:
            own = 0.0 if constant is None or not before else constant
            run.values[site] = x @ rows.T + own
            if constant is not None:
                run.constants[site] = constant

        return [(module, before, look)]

    return cut


def features(
    place: str, reads: tuple[nn.Module, bool], writes: nn.Module, encoder: tuple[Tensor, Tensor], U: Tensor, b: Tensor
) -> Cut:
    """A ReLU dictionary that reads before (True) or after a module, and writes what another puts out."""

    def cut(run: Run) -> Hooks:
        def look(x: Tensor) -> None:
            run.values[f"{place}.feature"] = x @ encoder[0].T + encoder[1]
            run.constants[f"{place}.feature"] = encoder[1]

        def after(out: Tensor) -> Tensor:
            f = run.values[f"{place}.feature"].relu()
            total = run.leaf(f"{place}.feature", f[..., None])[..., 0] @ U
            total = total + run.constant(f"{place}.bias", out, b)
            return total + run.vector(f"{place}.error", out - total)

        return [(*reads, look), (writes, False, after)]

    return cut


def norm(name: str, module: Any) -> Cut:
    """A LayerNorm or RMSNorm written out; frozen, its scale is held and its bias a constant."""
    centred = isinstance(module, nn.LayerNorm)
    epsilon = module.eps if hasattr(module, "eps") else module.variance_epsilon
    gain = module.weight.detach() + (1.0 if "Gemma" in type(module).__name__ else 0.0)

    def cut(run: Run) -> Hooks:
        seen: dict[str, Tensor] = {}

        def after(out: Tensor) -> Tensor:
            x = seen["x"] - seen["x"].mean(-1, keepdim=True) if centred else seen["x"]
            scale = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
            y = x * (scale.detach() if run.frozen else scale) * gain
            if not centred:
                return y
            return y + (run.constant(f"constant {name}", y, module.bias.detach()) if run.frozen else module.bias)

        return [(module, True, lambda x: seen.update(x=x)), (module, False, after)]

    return cut


def stored(module: Any) -> Tensor:
    """[out, in] of an nn.Linear or GPT-2's Conv1D."""
    return module.weight.detach() if isinstance(module, nn.Linear) else module.weight.detach().T


@dataclass(frozen=True, eq=False)
class Oracle:
    """A model, where it is cut, and how its units count.

    Args:
        hf: the model.
        cuts: all of them.
        importances: (inputs of matrices [1, pos, in], [row's number]) -> by site [1, pos, all components].
        alive: ids of the components that are alive, by site.
        seen: token ids of the columns of "embed".
    """

    hf: Any
    cuts: tuple[Cut, ...]
    importances: Callable[[Mapping[str, Tensor], Tensor], Mapping[str, Tensor]] | None
    alive: Mapping[str, Tensor]
    seen: Tensor

    def run(self, ids: Tensor, *, frozen: bool, deltas: bool) -> Run:
        """One row."""
        run = Run(frozen, deltas)
        handles = [_handle(*hook) for cut in self.cuts for hook in cut(run)]
        try:
            self.hf(ids[None], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return run

    def blocks(
        self, rows: list[Tensor], *, live: bool, weighting: str = "none", least: float = 0.0, spd: bool = False
    ) -> Blocks:
        """Sums over rows of all metrics, for each (target site, source site) that a gradient reaches."""
        found: Blocks = {}
        for number, ids in enumerate(rows):
            plain = self.run(ids, frozen=not live, deltas=True)
            run = self.run(ids, frozen=not live, deltas=not spd)
            counts = self._counts(plain, number, least)
            for target in run.values:
                c = counts.get(target) if weighting in ("target", "both") else None
                for source, A in self._tables(run, target, counts if weighting in ("source", "both") else {}).items():
                    sums = self._sums(A if c is None else A * c[..., None, None, None], run.values[target], spd)
                    own = found.setdefault((target, source), {})
                    for metric, value in sums.items():
                        block = self._bucketed(source, value, ids)
                        own[metric] = own.get(metric, torch.zeros_like(block)) + block
        return found

    def _counts(self, run: Run, number: int, least: float) -> dict[str, Tensor]:
        found = {name: (x[..., 0] != 0).to(x) for name, x in run.leaves.items() if name.endswith(".feature")}
        if self.importances is not None:
            said = self.importances({site: x[None] for site, x in run.inputs.items()}, torch.tensor([number]))
            found |= {site: torch.where(c[0] > least, c[0], 0.0)[:, self.alive[site]] for site, c in said.items()}
        return found

    def _tables(self, run: Run, target: str, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A without the target's weight, [q, target, p, source, channel], by source site."""
        y = run.values[target]
        eye = torch.eye(y.numel(), dtype=y.dtype).unflatten(1, y.shape)
        leaves = list(run.leaves.values())
        back = torch.autograd.grad(y, leaves, eye, is_grads_batched=True, retain_graph=True, allow_unused=True)
        found: dict[str, Tensor] = {}
        constant = torch.zeros(len(y), y.shape[1], len(y), 1, 1, dtype=y.dtype)
        for name, leaf, gradient in zip(run.leaves, leaves, back, strict=True):
            if gradient is None:
                continue
            A = gradient.unflatten(0, y.shape) * leaf.detach()
            if name.startswith("constant "):
                constant = constant + A
            else:
                found[name] = A * counts[name][..., None] if name in counts else A
        if run.frozen:
            at = torch.arange(len(y))
            constant[at, :, at, 0, 0] += run.constants.get(target, torch.zeros(y.shape[1]).to(y))
            if bool(constant.any()):
                found["bias"] = constant
        return found

    @staticmethod
    def _sums(A: Tensor, y: Tensor, spd: bool) -> dict[str, Tensor]:
        """By metric, [target, p, source]."""
        signs = y.detach().sign()[..., None, None, None]
        square = A.sum(0).square().sum(-1) if spd else A.sum(-1).square().sum(0)
        return {"attr": A.sum((0, -1)), "attr_abs": (signs * A).sum((0, -1)), "mean_squared_attr": square}

    def _bucketed(self, source: str, value: Tensor, ids: Tensor) -> Tensor:
        """[target, source]; of embeddings a column a token id."""
        if source != "embed":
            return value.sum(1)
        columns = torch.searchsorted(self.seen, ids)
        return value.new_zeros(len(value), len(self.seen)).index_add_(1, columns, value[..., 0])


def _handle(module: nn.Module, before: bool, change: Change) -> Any:
    """A hook that sees lines of one row, whatever shape a family gives them."""

    def through(tensor: Tensor) -> Tensor | None:
        flat = tensor.reshape(-1, tensor.shape[-1]) if tensor.is_floating_point() else tensor.reshape(-1)
        new = change(flat)
        return None if new is None else new.reshape(tensor.shape)

    def ahead(_: nn.Module, args: Any) -> Any:
        new = through(args[0])
        return None if new is None else (new, *args[1:])

    def after(_: nn.Module, __: Any, out: Any) -> Any:
        if not isinstance(out, tuple):
            return through(out)
        new = through(out[0])
        return None if new is None else (new, *out[1:])

    return module.register_forward_pre_hook(ahead) if before else module.register_forward_hook(after)
