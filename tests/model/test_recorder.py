"""One forward pass, recorded: only what was asked for, right for ragged batches, and nothing left behind."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from families import EVERY, VOCAB, fresh, loaded, prompts
from whence.errors import UnsupportedModelError
from whence.model.batch import Batch, pack
from whence.model.layout import bind
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Routed, Wanted, Write

RAGGED = [[5, 9, 12, 40, 33, 21, 7, 8, 60], [11, 4, 50], [30, 31, 32, 33, 34, 35]]


def packed(rows: list[list[int]]) -> Batch:
    return pack(rows, VOCAB, torch.device("cpu"))


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).detach().abs().max()) <= 2e-5 * float(b.detach().abs().max().clamp_min(1.0))


@pytest.mark.parametrize("name", EVERY)
def test_a_ragged_batch_equals_each_prompt_on_its_own(name: str) -> None:
    layout = loaded(name).layout
    batch = packed(RAGGED)
    together = record(layout, batch, batch.rows(-1))
    for number, row in enumerate(RAGGED):
        alone = record(layout, one := packed([row]), one.rows(-1))
        assert close(together.logits[number], alone.logits[0])
        assert close(together.final.input[number], alone.final.input[0])
        for ours, theirs in zip(together.writes, alone.writes, strict=True):
            assert ours.writer is theirs.writer
            assert close(ours.output[number], theirs.output[0])
            if isinstance(ours.input, Tensor):
                assert close(ours.input[number], theirs.input[0])


@pytest.mark.parametrize("name", ["gpt2", "qwen2_moe", "gemma2", "opt", "jamba"])
def test_asking_for_some_rows_gives_those_rows_of_all(name: str) -> None:
    layout = loaded(name).layout
    batch = Batch(prompts(), torch.tensor([9, 9]))
    rows = torch.tensor([[2, 8], [0, 3]])
    everything = record(layout, batch, batch.rows(None), wanted=Wanted(scales=True))
    some = record(layout, batch, rows, wanted=Wanted(scales=True))
    pick = torch.arange(2)[:, None], rows
    assert some.logits.shape == (2, 2, VOCAB)
    assert close(some.logits, everything.logits[pick])
    assert torch.equal(some.embedding, everything.embedding[pick])
    assert torch.equal(some.final.output, everything.final.output[pick])
    for norm, scale in some.scales.items():
        assert torch.equal(scale, everything.scales[norm][pick])
    for few, all_ in zip(some.writes, everything.writes, strict=True):
        assert torch.equal(few.output, all_.output[pick])
        if isinstance(few.input, Routed):
            lines = (pick[0] * 9 + rows).flatten()
            assert torch.equal(few.input.index, all_.input.index[lines])
            assert torch.equal(few.input.weight, all_.input.weight[lines])


def test_logits_may_be_kept_at_other_rows_than_those_looked_at() -> None:
    layout, batch = loaded("llama").layout, Batch(prompts(), torch.tensor([9, 9]))
    trace = record(layout, batch, batch.rows(None), keep=torch.tensor([[4], [8]]))
    plain = layout.hf(batch.ids, use_cache=False).logits
    assert close(trace.logits[:, 0], plain[torch.arange(2), torch.tensor([4, 8])])
    assert trace.final.output.shape[1] == 9


def test_learned_positions_are_told_from_tokens() -> None:
    layout, batch = loaded("gpt2").layout, Batch(prompts(), torch.tensor([9, 9]))
    trace = record(layout, batch, batch.rows([2, 5]))
    assert trace.position is not None
    assert torch.equal(trace.position, layout.hf.transformer.wpe.weight[[2, 5]].expand(2, 2, -1))
    assert close(trace.embedding, layout.hf.transformer.wte.weight[batch.ids[:, [2, 5]]])


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_norm_scales_are_what_the_norms_divide_by(name: str) -> None:
    layout, batch = loaded(name).layout, Batch(prompts(), torch.tensor([9, 9]))
    norms = tuple({norm for w in layout.writers for norm in (w.norm, w.post_norm) if norm is not None})
    trace = record(layout, batch, batch.rows(None), wanted=Wanted(scales=True, around=frozenset(norms)))
    assert trace.scales.keys() == set(norms)
    for norm, scale in trace.scales.items():
        x = trace.around[norm].input.double()
        x = x - x.mean(-1, keepdim=True) if name == "gpt2" else x
        # The gain a probe sees holds a factor (1 + eps)^-1/2, and so does the scale, inversely.
        assert torch.allclose(scale.double(), x.square().mean(-1).rsqrt(), rtol=2e-4)


def test_patterns_and_streams_are_recorded_only_where_asked() -> None:
    layout, batch = loaded("llama").layout, Batch(prompts(), torch.tensor([9, 9]))
    bare = record(layout, batch, batch.rows(-1))
    assert (bare.streams, bare.scales) == ({}, {})
    assert all(write.attention is None and write.sublayer is None for write in bare.writes)
    rich = record(
        layout, batch, batch.rows(-1), wanted=Wanted(attention=True, sublayers=True, streams=frozenset({0, 2}))
    )
    assert rich.streams.keys() == {0, 2}
    assert torch.equal(rich.streams[2], rich.final.input)
    for write in rich.writes:
        assert write.sublayer is not None
        assert (write.attention is not None) == (write.writer.name == "attn")
        if write.attention is not None:
            assert write.attention.pattern.shape == (2, 4, 1, 9)
            assert write.attention.value.shape[2] == 9
            assert torch.allclose(write.attention.pattern.sum(-1), torch.tensor(1.0))


def test_a_family_whose_patterns_cannot_be_read_says_so() -> None:
    layout, batch = loaded("bloom").layout, Batch(prompts(), torch.tensor([9, 9]))
    with pytest.raises(NotImplementedError, match=r"BloomForCausalLM.*patterns"):
        record(layout, batch, batch.rows(-1), wanted=Wanted(attention=True))


def test_writes_are_handed_over_in_order_and_can_be_let_go() -> None:
    layout, batch = loaded("llama").layout, Batch(prompts(), torch.tensor([9, 9]))
    seen: list[str] = []
    alive: list[weakref.ref] = []

    def take(write: Write) -> None:
        assert all(reference() is None for reference in alive), "an earlier write is still held"
        alive.append(weakref.ref(write))
        seen.append(write.writer.key)

    trace = record(layout, batch, batch.rows(-1), on_write=take)
    assert seen == ["0.attn", "0.mlp", "1.attn", "1.mlp", "2.attn", "2.mlp"]
    assert trace.writes == ()


def test_a_kept_write_is_not_changed_by_what_the_model_does_next() -> None:
    layout, batch = loaded("gpt2").layout, Batch(prompts(), torch.tensor([9, 9]))
    trace = record(layout, batch, batch.rows(None))
    total = trace.embedding + trace.position + sum(write.output for write in trace.writes)
    assert close(total, trace.final.input)


def test_hooks_are_gone_afterwards_also_when_something_fails() -> None:
    hf = fresh("llama")
    layout, batch = Model(hf).layout, Batch(prompts(), torch.tensor([9, 9]))
    assert hooks_of(hf) == 0

    def fail(write: Write) -> None:
        assert hooks_of(hf) > 0
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        record(layout, batch, batch.rows(-1), wanted=Wanted(attention=True), on_write=fail)
    assert hooks_of(hf) == 0
    assert hf.config._attn_implementation == "sdpa"


def test_a_writer_that_is_never_called_is_named() -> None:
    hf = fresh("llama")
    layout, batch = Model(hf).layout, Batch(prompts(), torch.tensor([9, 9]))
    mlp = hf.model.layers[1].mlp
    mlp.forward = lambda x: nn.functional.linear(
        nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight
    )
    with pytest.raises(UnsupportedModelError, match=r"1\.mlp was never called.*plain PyTorch"):
        record(layout, batch, batch.rows(-1))


def test_a_final_norm_that_is_never_called_is_named() -> None:
    hf = fresh("llama")
    hf.spare = nn.RMSNorm(32)
    layout = bind(hf, replace(loaded("llama").architecture, final_norm="spare"))
    with pytest.raises(UnsupportedModelError, match="final norm or the first block was never called"):
        record(layout, batch := Batch(prompts(), torch.tensor([9, 9])), batch.rows(-1))
