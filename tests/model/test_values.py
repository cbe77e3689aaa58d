"""Which rows of which map are W_V, on every family whose attention is followed, and what is refused."""

import pytest
import torch
from torch import Tensor, nn

from families import GRAPH_FAMILIES, fresh, loaded, prompts
from graphs import BIASED, PARALLEL, WINDOWS
from whence.errors import UnsupportedModelError
from whence.model.attention import Attention
from whence.model.freeze import held
from whence.model.hooks import first_tensor, hooked
from whence.model.model import Model
from whence.model.values import value_maps

IDS = prompts(1, 7)


@pytest.mark.parametrize("name", [*GRAPH_FAMILIES, *WINDOWS, *PARALLEL, *BIASED])
def test_w_v_times_what_the_sublayer_reads_plus_b_v_are_the_values(name: str) -> None:
    model = loaded(name, torch.float64)
    seen: dict[nn.Module, Attention] = {}
    read: dict[nn.Module, Tensor] = {}
    before = [(w.module, lambda a, k, m=w.module: read.update({m: first_tensor(a, k)})) for w in model.layout.attention]
    with torch.no_grad(), hooked(before=before), held(model.layout, on_attention=seen.__setitem__):
        model.hf(input_ids=IDS, use_cache=False)
    found = value_maps(model.layout)
    assert sorted(found) == [writer.layer for writer in model.layout.attention]
    for writer in model.layout.attention:
        here, x = found[writer.layer], read[writer.module][0]
        value = x @ here.weight(model.d_model, x.device).T + here.bias(model.d_model, x)
        own = seen[writer.module].value[0]  # group, key, channel
        assert here.groups == len(own)
        assert (value - own.transpose(0, 1).flatten(1)).abs().max() < 1e-12


def test_fewer_groups_than_heads_share_their_values() -> None:
    assert {here.groups for here in value_maps(loaded("llama").layout).values()} == {2}


@torch.no_grad()
def test_values_that_no_token_of_the_search_makes_speak_are_still_found() -> None:
    hf = fresh("llama")
    hf.model.embed_tokens.weight[:, 0] = 0
    attention = hf.model.layers[0].self_attn
    attention.q_proj.weight.zero_()
    attention.v_proj.weight.zero_()
    attention.v_proj.weight[3, 0] = 1.0  # reads a direction that no embedding has
    here = value_maps(Model(hf).layout)[0]
    assert here.module is attention.v_proj
    assert here.weight(32, torch.device("cpu"))[3, 0] == 1.0


@torch.no_grad()
def test_the_map_found_follows_changed_weights() -> None:
    hf = fresh("gpt2")
    layout = Model(hf).layout
    before = value_maps(layout)[1].weight(32, torch.device("cpu")).clone()
    hf.transformer.h[1].attn.c_attn.weight.mul_(2)
    assert torch.equal(value_maps(layout)[1].weight(32, torch.device("cpu")), 2 * before)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_a_map_that_is_wrapped_gives_the_same_rows(name: str) -> None:
    plain, wrapped = Model(fresh(name)), Model(fresh(name))
    module = value_maps(plain.layout)[0].module
    path = next(path for path, other in plain.hf.named_modules() if other is module)
    parent, _, child = path.rpartition(".")
    holder = wrapped.hf.get_submodule(parent)
    setattr(holder, child, _Wrapped(getattr(holder, child)))
    here, there = value_maps(plain.layout)[0], value_maps(wrapped.layout)[0]
    like = torch.zeros(1)
    assert torch.equal(there.rows, here.rows)
    assert torch.allclose(there.weight(32, like.device), here.weight(32, like.device), atol=1e-6)
    assert torch.allclose(there.bias(32, like), here.bias(32, like), atol=1e-6)


class _Wrapped(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


def test_values_that_are_no_outputs_of_a_map_are_refused() -> None:
    model = Model(fresh("llama"))
    v_proj = model.hf.model.layers[1].self_attn.v_proj
    v_proj.forward = lambda x: nn.functional.linear(x, v_proj.weight)  # still the module's output: found
    assert value_maps(model.layout)[1].module is v_proj
    other = Model(fresh("olmo"))
    other.hf.config.clip_qkv = 0.1
    with pytest.raises(UnsupportedModelError, match=r"0.attn: its values are not outputs of one map"):
        value_maps(other.layout)
