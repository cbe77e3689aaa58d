"""whence alone on a GPU, at Gemma 2 2B's shape with 16,384 features a layer: the last section of graph.py.

Random weights in float32 without TF32, made on the device. Wall seconds between synchronisations, peak memory of the
device's allocator, and the bound of `graph_bound.py` at the rate of a large matrix product there. A graph has 7,500
feature nodes: with every active feature of 512 tokens as a node its weights would not fit in any memory.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

import whence
from graph_bound import flops
from graph_model import BOS, TINY, Shape, move_norms, prompt, transcoders
from measuring import MB
from whence.components.activation import Activation

GEMMA = {"layers": 26, "d_model": 2304, "heads": 8, "key_heads": 4, "d_head": 256, "d_mlp": 9216, "features": 16384}
GOALS = {64: 1.0, 512: 15.0}
NODES = 7500


@dataclass(frozen=True)
class Timed:
    """What one size came to: wall seconds of the repeats, extra bytes on the device, seconds of the bound."""

    length: int
    active: int
    nodes: int
    seconds: list[float]
    extra: int | None
    bound: float
    device: str


def timed(*, smoke: bool, repeats: int) -> list[Timed]:
    """Both prompt lengths where there is a GPU; in a smoke run a tiny one on what there is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if smoke:
        return [measure(TINY, device, repeats, nodes=10)]
    if device.type == "cpu":
        return []
    shapes = [Shape(**GEMMA, vocab=256000, length=length, active=20) for length in GOALS]
    return [measure(shape, device, repeats, nodes=NODES) for shape in shapes]


def measure(shape: Shape, device: torch.device, repeats: int, nodes: int) -> Timed:
    """One size, after one run that is not counted."""
    torch.manual_seed(0)
    hf = gemma(shape, device)
    ids, targets = (given.to(device) for given in prompt(shape))
    made, counts = transcoders(hf, shape, ids)
    dictionary = [transcoder(layer, **tensors) for layer, tensors in enumerate(made)]
    model = whence.Model(hf)

    def run() -> whence.Graph:
        return whence.attribution_graph(
            model, dictionary, ids, targets=targets, parity="circuit-tracer", max_nodes=nodes
        )

    graph = run()
    selected = graph.active_features[graph.selected_features].cpu()
    chosen = torch.zeros_like(counts).index_put_(tuple(selected[:, :2].T), torch.tensor(1), accumulate=True)
    work = sum(flops(shape, chosen, counts).values())
    before = allocated(device)
    seconds = [wall(run, device) for _ in range(repeats)]
    extra = None if before is None else torch.cuda.max_memory_allocated(device) - before
    bound = work / gemm_rate(device, shape.d_model)
    return Timed(shape.length, int(counts.sum()), len(selected), seconds, extra, bound, name(device))


def gemma(shape: Shape, device: torch.device) -> Any:
    """A random Gemma 2, made on the device."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        hidden_size=shape.d_model, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads, head_dim=shape.d_head, query_pre_attn_scalar=shape.d_head,
        intermediate_size=shape.d_mlp, vocab_size=shape.vocab, bos_token_id=BOS,
    )  # fmt: skip
    with device:
        model = Gemma2ForCausalLM(config).eval()
        move_norms(model)
    return model


def transcoder(layer: int, threshold: torch.Tensor, **tensors: torch.Tensor) -> whence.Transcoder:
    """The tensors of one layer as whence has them."""
    return whence.Transcoder(layer=layer, activation=Activation("jumprelu", threshold=threshold), **tensors)


def wall(call: Any, device: torch.device) -> float:
    """Seconds until everything that the call started is done."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def gemm_rate(device: torch.device, size: int) -> float:
    """Operations a second of a float32 matrix product as wide as the model."""
    a = torch.randn(2 * size, size, device=device)
    b = torch.randn(size, size, device=device)
    return 4 * size**3 / min(wall(lambda: a @ b, device) for _ in range(10))


def allocated(device: torch.device) -> int | None:
    """Bytes in use on a GPU, its peak set back; None elsewhere."""
    if device.type == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name(device: torch.device) -> str:
    """What it is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def report(found: list[Timed]) -> list[str]:
    """A line a size, with its goal where it has one."""
    if not found:
        return ["Gemma 2 2B's shape was not measured: there is no GPU."]
    return [line(one) for one in found]


def line(one: Timed) -> str:
    """What one size came to."""
    memory = "" if one.extra is None else f", {one.extra / MB:.0f} extra MB"
    goal = f" (goal: {GOALS[one.length]:.0f} s on an H200)" if one.length in GOALS else ""
    size = f"{one.device}, {one.length} tokens, {one.nodes} of {one.active} features"
    return f"{size}: {statistics.median(one.seconds):.3g} s, bound {one.bound:.3g} s{memory}{goal}."
