"""Parameter components with random parts, small models for them, and what the engine sums of a few ragged rows."""

import torch
from torch import Tensor

from families import fresh
from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.named import sorted_out
from whence.engine.dataset.wired import Options
from whence.engine.dataset.wiring import Wired, wire
from whence.model.batch import Batch
from whence.model.linear import matrix_of, width_into
from whence.model.matrices import LinearMap, matrices
from whence.model.model import Model
from whence.results.dataset_axes import METRICS

TOKENS = torch.tensor([5, 9])  # whose logits are targets
_GROUPED = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL = {
    "llama biased": _GROUPED,
    "granite": {**_GROUPED, "logits_scaling": 1.0},
    "mixtral": _GROUPED,
    "gemma": {**_GROUPED, "head_dim": 4},
    "gemma2 window": {**_GROUPED, "head_dim": 4, "query_pre_attn_scalar": 4},
    "gpt2": {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_inner": 12},
    "opt": {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "ffn_dim": 12,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    },
    "gpt_neox": {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 12, "num_attention_heads": 2},
}


def small(name: str) -> Model:
    """Two layers of width 16 in float64."""
    return Model(fresh(name, torch.float64, attn_implementation="eager", **SMALL[name]))


def rows() -> Batch:
    """Three rows of seven, five and six tokens, some of them twice."""
    ids = torch.randint(4, 30, (3, 7), generator=torch.Generator().manual_seed(3))
    return Batch(ids, torch.tensor([7, 5, 6]))


def random_parts(model: Model, count: int = 3, only: tuple[str, ...] = (), ends: bool = False) -> ParameterComponents:
    """V random, U near what explains the matrix best, one dead component in the second matrix.

    Args:
        model: whose matrices.
        count: components of the smallest.
        only: names of matrices without their layer; all if empty.
        ends: the embedding and the unembedding, too.
    """
    generator, parts = torch.Generator().manual_seed(0), dict[str, Part]()
    for site, one in matrices(model.layout).items():
        if (one.layer is None and not ends) or (only and one.name not in only):
            continue
        n, W = count + len(parts) % 3, _matrix(one).to(model.accumulation)
        V = torch.randn(W.shape[1], n, generator=generator).to(W) / W.shape[1] ** 0.5
        U = torch.linalg.lstsq(V, W.T).solution + 0.1 * torch.randn(n, W.shape[0], generator=generator).to(W)
        alive = torch.arange(n) != 1 if len(parts) == 1 else None
        parts[site] = Part(site, V, U, alive)
    return ParameterComponents(parts, importances(parts))


def _matrix(one: LinearMap) -> Tensor:
    weight = one.module.get_parameter("weight").detach()
    if one.site == "embed.matrix":
        return weight.T
    width = width_into(one.module, one.site)
    return matrix_of(one.module, weight.numel() // width, width, weight)


def importances(parts: dict[str, Part]):
    """In [0, 1], with zeros and ones; they depend on the input and on the row's number."""
    generator = torch.Generator().manual_seed(1)
    maps = {site: torch.randn(one.V.shape, generator=generator).to(one.V) for site, one in parts.items()}

    def found(inputs: dict[str, Tensor], numbers: Tensor) -> dict[str, Tensor]:
        read = {site: maps[site][x] if x.ndim == 2 else x @ maps[site].to(x) for site, x in inputs.items()}
        shift = 0.1 * (numbers % 2)[:, None, None] - 0.4
        return {site: (1.8 * x.sigmoid() + shift.to(x)).clamp(0, 1) for site, x in read.items()}

    return found


def wired(model: Model, components: object, options: Options | None = None, tokens: Tensor = TOKENS) -> Wired:
    """The wiring for `rows`."""
    options = Options(METRICS) if options is None else options
    return wire(model, sorted_out(components), torch.unique(rows().ids), tokens, options, 7)


def summed(wiring: Wired, batch: Batch | None = None) -> dict[tuple[str, str], dict[str, Tensor]]:
    """What the engine makes of `rows`, in two batches of one window."""
    batch, window, kernels = rows() if batch is None else batch, Window(), Kernels(wiring)
    for some in torch.arange(len(batch.ids)).split(2):
        kernels.count(Batch(batch.ids[some], batch.lengths[some]), some, window)
    kernels.finish(window)
    return window.sums
