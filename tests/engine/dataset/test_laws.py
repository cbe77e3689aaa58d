import re

import pytest
import torch
from torch import Tensor

from dataset_parts import random_parts, rows, wired
from families import loaded
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.kernels import Counted, Kernels
from whence.engine.dataset.wired import Options

LAWFUL = ("llama biased", "gpt2", "gemma2", "gpt_neox", "cohere", "granite", "opt")
GAP = 1e-5  # of the sum of magnitudes, in float32
SIGNED = ("attr", "attr_abs")
INSIDE = re.compile(r"\d+\.(attn|attn_fused)\.o|\d+\.(glu|mlp)\.down")


def counted(name: str, options: Options) -> tuple[Window, Counted]:
    model, window = loaded(name), Window()
    kernels = Kernels(wired(model, random_parts(model, 2), options))
    seen = kernels.count(rows(), torch.arange(3), window)
    kernels.finish(window)
    return window, seen


def parts_of(window: Window, target: str, metric: str) -> dict[str, Tensor]:
    """What belongs to a target's sum: for an output map the values, for a gated MLP's last map `up`."""
    found = {s: sums[metric].double() for (t, s), sums in window.sums.items() if t == target and metric in sums}
    if not INSIDE.fullmatch(target):
        return found
    through = target.replace("attn.o", "attn.v").replace("glu.down", "glu.up")
    if through == target:
        return {}  # a fused query-key-value matrix, or a nonlinearity that is no product
    return {
        site: block for site, block in found.items() if site.removesuffix(".delta").removesuffix(".bias") == through
    }


@pytest.mark.parametrize("name", LAWFUL)
def test_with_norms_frozen_the_sources_sum_to_what_the_target_reads(name: str) -> None:
    window, seen = counted(name, Options(SIGNED, weighting="target", least=0.2))
    checked = set[str]()
    for target, heard in seen.heard.items():
        y = heard.y.double()
        for metric, truth in (("attr", y), ("attr_abs", y.abs())):
            parts = parts_of(window, target, metric)
            if not parts:
                continue
            own = (heard.weights["attr"].double() * truth).sum(0)
            total = torch.stack([block.sum(1) for block in parts.values()]).sum(0)
            size = torch.stack([block.abs().sum(1) for block in parts.values()]).sum(0) + own.abs()
            assert ((total - own).abs() <= GAP * size + 1e-9).all(), (target, metric, total, own)
            checked.add(target)
    unlawful = {target for target in seen.heard if re.search(r"fused\.o|mlp\.down", target)}
    assert checked == set(seen.heard) - unlawful


@pytest.mark.parametrize("name", ["llama", "granite", "cohere"])
def test_with_norms_live_what_reads_the_stream_has_a_sum_of_nothing(name: str) -> None:
    window, seen = counted(name, Options(SIGNED, live=True))
    for target, heard in seen.heard.items():
        parts = {} if INSIDE.fullmatch(target) else parts_of(window, target, "attr")
        if parts:
            total = torch.stack([block.sum(1) for block in parts.values()]).sum(0)
            size = (heard.weights["attr"] * heard.y).abs().sum(0)  # of which a norm's epsilon keeps a little
            assert (total.abs() <= 1e-3 * size).all(), target


def test_the_constants_of_norms_are_one_source() -> None:
    window, seen = counted("gpt2", Options(SIGNED))
    V = next(one for one in loaded("gpt2").hf.modules() if type(one).__name__ == "GPT2Model").ln_f.bias.detach()
    block = window.sums["output.stream", "bias"]["attr"]
    assert torch.allclose(block[:, 0], V * seen.weighed.real.sum())


def test_a_model_without_constants_has_no_such_source() -> None:
    window, _ = counted("llama", Options(SIGNED))
    assert not any(source == "bias" for _, source in window.sums)
