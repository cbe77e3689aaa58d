import torch

from dataset_parts import random_parts, rows, small, wired
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS


def test_only_attentions_that_a_closed_form_looks_into_are_kept() -> None:
    model = small("llama biased")
    parts = random_parts(model)
    last = {site: part for site, part in parts.parts.items() if site.startswith("1.")}
    kernels = Kernels(wired(model, type(parts)(last, lambda inputs, numbers: parts.importance(inputs, numbers))))
    seen = kernels.count(rows(), torch.arange(3), Window())
    assert set(seen.passed.attended) == {model.layout.blocks[1].self_attn}


def test_where_none_does_the_model_attends_as_it_likes() -> None:
    model = small("llama biased")
    model.layout.hf.set_attn_implementation("sdpa")
    used: list[str] = []
    handle = model.layout.blocks[0].register_forward_hook(
        lambda *_: used.append(model.layout.hf.config._attn_implementation)
    )
    kernels = Kernels(wired(model, ["attn", "mlp"], Options(METRICS)))
    used.clear()
    seen = kernels.count(rows(), torch.arange(3), Window())
    handle.remove()
    assert not seen.passed.attended
    assert used == ["sdpa"]
