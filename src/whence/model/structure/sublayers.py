"""What one block of an unlisted family writes to the stream, and through which norms it reads it, found from its calls.

see the package. Everything here works on [token, width] recordings of one forward pass.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.architectures import Kind, Sublayer
from whence.model.layout import find
from whence.model.linear import is_plain
from whence.model.norms import probe_norm
from whence.model.structure.calls import Call, Puzzle, same
from whence.model.structure.terms import terms_of

READ = 1e-4  # two recordings of the stream this near to each other are the same
MISFIT = 1e-3  # relative error up to which a module is a norm, or linear

MLP_WORDS = ("mlp", "feed_forward", "feedforward", "ffn")
SSM_WORDS = ("mamba", "ssm", "recurrent", "linear_attn", "rwkv", "delta", "lightning", "conv", "rglru")
ATTENTION_WORDS = ("attn", "attention")
ATTENTION_MAPS = {"q_proj", "k_proj", "qkv_proj", "query_key_value", "query", "key", "c_attn", "wqkv"}


@dataclass(frozen=True)
class Found:
    """A sublayer, with its multiplier as a number."""

    sublayer: Sublayer
    multiplier: float


def read_block(block: Call, calls: list[Call], config: Any) -> list[Found]:
    """The sublayers of one block in the order they write.

    Raises:
        Puzzle: naming the module and the value seen.
    """
    assert block.input is not None
    terms = terms_of(block, calls)
    streams = [block.input]
    for call, coefficient in terms:
        assert call.output is not None
        streams.append(streams[-1] + coefficient * call.output)
    read = [_describe(block, calls, call, streams, config) for call, _ in terms]
    stages = sorted({stage for stage, _ in read})
    found = [
        Found(Sublayer(**description, stage=stages.index(stage)), coefficient)
        for (stage, description), (_, coefficient) in zip(read, terms, strict=True)
    ]
    found = [f for f in found if not _shared_expert(f, found)]
    kinds = [f.sublayer.kind for f in found]
    double = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if double is not None:
        paths = ", ".join(f.sublayer.write for f in found if f.sublayer.kind == double)
        raise Puzzle(f"{block.path} has several writers of one kind ({double}): {paths}")
    return found


def _describe(
    block: Call, calls: list[Call], call: Call, streams: list[Tensor], config: Any
) -> tuple[int, dict[str, Any]]:
    """Which stream a writer's sublayer reads, and everything else its entry says of it."""
    post_norm = None
    if _is_norm(call):
        post_norm, call = call.path, _source(block, calls, call)
    write = _last_map(block, calls, call)
    module = write.path.rpartition(".")[0] or write.path
    stage, norm = _reads(block, calls, write, module, streams)
    kind = _kind(block.module, write, module)
    return stage, {
        "kind": kind,
        "module": module,
        "write": write.path,
        "norm": norm,
        "post_norm": post_norm,
        "heads": _heads(kind, write, config),
    }


def _source(block: Call, calls: list[Call], norm: Call) -> Call:
    """The innermost call that returned what a post-norm takes."""
    for call in calls[: calls.index(norm)]:
        if same(call.output, norm.input):
            return call
    raise Puzzle(
        f"{block.path}.{norm.path} ({type(norm.module).__name__}) is a post-norm of something no module returns"
    )


def _last_map(block: Call, calls: list[Call], call: Call) -> Call:
    """The linear map or the experts whose output is this call's."""
    if _is_experts(call) or _is_affine(call):
        return call
    experts = next((c for c in calls if c.path == f"{call.path}.experts" and _is_experts(c)), None)
    if experts is None:
        raise Puzzle(
            f"{block.path}.{call.path} ({type(call.module).__name__}) writes to the stream, but is neither linear in "
            "what it reads nor a container of experts in transformers' common form"
        )
    return experts


def _is_experts(call: Call) -> bool:
    """Whether a module is a container of experts: 3-D parameters, called with hidden states, indices and weights."""
    parameters = dict(call.module.named_parameters(recurse=False))
    return (
        call.tensors >= 3 and {"gate_up_proj", "down_proj"} <= parameters.keys() and parameters["down_proj"].ndim == 3
    )


def _shared_expert(found: Found, others: list[Found]) -> bool:
    """Whether a mixture in the same block already brings this writer along (layout.py)."""
    return any(
        o.sublayer.kind == "moe" and found.sublayer.write.startswith(f"{o.sublayer.module}.shared_expert.")
        for o in others
    )


@torch.no_grad()
def _is_affine(call: Call) -> bool:
    """f(2x) + f(-x) - f(x) = f(0), on what the module was called with."""
    if is_plain(call.module) or call.input is None:
        return call.input is not None
    x, module = call.input, call.module
    try:
        difference = module(2 * x) + module(-x) - module(x) - module(torch.zeros_like(x))
        return float(difference.norm()) <= MISFIT * float(module(x).norm())
    except (TypeError, ValueError, RuntimeError, IndexError):  # it takes more than hidden states
        return False


@torch.no_grad()
def _is_norm(call: Call) -> bool:
    """Whether a module did gain * c(x) / sigma + bias, with a sigma that follows x."""
    x, y = call.input, call.output
    if x is None or y is None or x.shape != y.shape or any(True for _ in call.module.children()):
        return False
    try:
        norm = probe_norm(call.module, x.shape[-1])
    except UnsupportedModelError:
        return False
    if norm.misfit(x, y) > MISFIT:
        return False
    twice = norm.inverse_scale(x, call.module(2 * x)) / norm.inverse_scale(x, y)  # 2 where nothing is normalised
    return float((twice - 1).abs().max()) < 0.5


def _reads(block: Call, calls: list[Call], write: Call, module: str, streams: list[Tensor]) -> tuple[int, str | None]:
    """Which stream a sublayer reads, and the norm it reads it through, if any."""
    earlier = calls[: calls.index(write)]
    within = [call for call in calls if call.path == module or call.path.startswith(f"{module}.")]
    norms = [(call, stage) for call in earlier if (stage := _stage(call, streams)) is not None and _is_norm(call)]
    linked = [pair for pair in norms if any(same(pair[0].output, call.input) for call in within)]
    bare = [stage for call in within if (stage := _stage(call, streams)) is not None]
    if not linked and bare:
        return bare[0], None
    if not norms:
        raise Puzzle(f"{block.path}.{module} reads neither the stream nor a norm of it")
    norm, stage = (linked or norms)[-1]
    return stage, norm.path


def _stage(call: Call, streams: list[Tensor]) -> int | None:
    """Which of the streams a module was given."""
    return next((stage for stage, stream in enumerate(streams) if same(call.input, stream, READ)), None)


def _kind(block: nn.Module, write: Call, module: str) -> Kind:
    """What a writer is called, from the names around it: the only place where names count."""
    if _is_experts(write):
        return "moe"
    path, parent = write.path.lower(), find(block, module)
    named = f"{path} {type(parent).__name__.lower()}"
    if any(word in path for word in MLP_WORDS):
        return "mlp"
    if any(word in named for word in SSM_WORDS):
        return "ssm"
    siblings = {name for name, _ in parent.named_children()} if parent is not None else set[str]()
    attention = any(word in named for word in ATTENTION_WORDS) or siblings & ATTENTION_MAPS
    return "attn" if attention else "mlp"


def _heads(kind: Kind, write: Call, config: Any) -> str | None:
    """The configuration field that counts the heads side by side in an attention's last map."""
    heads = getattr(config, "num_attention_heads", None)
    fits = isinstance(heads, int) and write.input is not None and heads > 0 and write.input.shape[-1] % heads == 0
    return "num_attention_heads" if kind == "attn" and fits else None
