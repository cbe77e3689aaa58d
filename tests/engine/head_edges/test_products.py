from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch

from circuit_cases import Wide, asked_of, pairs, small
from families import prompts
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.effects import gradients
from whence.engine.circuits.meeting import compared, seen
from whence.engine.circuits.network import CircuitSite
from whence.engine.circuits.state import look
from whence.engine.head_edges import products as module
from whence.engine.head_edges.products import head_edges
from whence.engine.head_edges.reads import at_ends, head_reads
from whence.engine.head_edges.taking import Taken, take
from whence.engine.head_edges.wiring import HeadWiring, head_wiring_of
from whence.errors import UnsupportedModelError


@contextmanager
def wired(family: str, units: tuple[str, str] = ("attn.head", "mlp")) -> Generator[HeadWiring]:
    model = small(family)
    network = network_of(model, units)
    with Wide(), network.running():
        yield head_wiring_of(network, model.batch(prompts(2, 5)), by_input=True)


@pytest.mark.parametrize(
    ("family", "turns"),
    [("gpt2", 1), ("gpt_neox", 1), ("llama", 2), ("phi3", 2), ("qwen3", 2), ("olmo2", 4), ("olmoe", 4)],
)
def test_ends_go_back_together_unless_heads_share_channels(family: str, turns: int) -> None:
    with wired(family) as wiring:
        for reads in wiring.reads.values():
            assert len(reads.turns) == turns
            assert sorted(end for turn in reads.turns for end in turn) == [(i, h) for i in range(3) for h in range(4)]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "phi3"])
def test_the_channels_of_an_end_are_those_it_changes_with(family: str) -> None:
    with wired(family) as wiring:
        network = wiring.network
        site, reads = next(iter(wiring.reads.items()))
        assert site.sublayer is not None
        calls = network.calls(small(family).batch(prompts(1, 4)))
        given = torch.randn(calls.embedded.shape, dtype=torch.float64)
        for (which, head), pieces in reads.pieces.items():
            for piece in pieces:
                bias = torch.zeros(piece.width, dtype=torch.float64)
                bias[piece.channels] = 1.0
                handle = piece.module.register_forward_hook(lambda _, __, out, more=bias: out + more)
                moved = compared(network, site.sublayer, calls, given)
                handle.remove()
                for end, (old, new) in enumerate(
                    zip(compared(network, site.sublayer, calls, given), moved, strict=True)
                ):
                    changed = (old != new).any(-1).any(-1)[0].nonzero()[:, 0].tolist()
                    assert changed == ([head // (4 // old.shape[1])] if end == which else [])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "gpt_oss"])
def test_covectors_at_all_ends_are_autograds(family: str) -> None:
    with wired(family) as wiring:
        network = wiring.network
        state = look(network, network.calls(small(family).batch(prompts(2, 5))))
        site, reads = [*wiring.reads.items()][1]
        sublayer, stream = site.sublayer, state.streams[site.point]
        assert sublayer is not None
        covector = torch.randn(*stream.shape[:2], site.units.width, dtype=torch.float64)
        ends = at_ends(seen(network, sublayer, state, site.point), covector)
        back = reads.back(network, state.calls, sublayer.given(stream), ends)
        summed = sum(
            piece.back(one, stream.shape[-1])
            for end, parts in back.items()
            for piece, one in zip(reads.pieces[end], parts, strict=True)
        )
        given = sublayer.given(stream).detach().requires_grad_()
        inside = sublayer.call(state.calls, given).inside
        assert inside is not None
        expected = torch.autograd.grad(inside, given, covector)[0]
        torch.testing.assert_close(summed, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("units", [("attn.head", "mlp"), ("attn.head", "mlp.neuron")])
@pytest.mark.parametrize("tokens", [1, 3, 7])
def test_edges_do_not_depend_on_blocks(units: tuple[str, str], tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with wired("gemma2", units) as wiring:
        taken, delta = linear(wiring)
        whole = head_edges(wiring, taken, delta, by_example=True)
        row = max(24 * 64, sum(s.units.count for s in delta if s not in wiring.crowded) * 32)
        monkeypatch.setattr(module, "AT_ONCE", tokens * row)
        cut = head_edges(wiring, taken, delta, by_example=True)
        torch.testing.assert_close(cut, whole, atol=1e-13, rtol=1e-10)
        summed = head_edges(wiring, taken, delta, by_example=False)
        torch.testing.assert_close(summed[0], whole.sum(0), atol=1e-13, rtol=1e-10)


def test_sites_can_be_asked_one_by_one() -> None:
    with wired("llama") as wiring:
        taken, delta = linear(wiring)
        parts = [head_edges(wiring, taken, {site: one}, by_example=True) for site, one in delta.items()]
        torch.testing.assert_close(sum(parts), head_edges(wiring, taken, delta, by_example=True))


def linear(wiring: HeadWiring) -> tuple[Taken, dict[CircuitSite, torch.Tensor]]:
    network = wiring.network
    asked = asked_of(small(network.layout.hf.config.model_type), None, *pairs(5), network)
    calls = asked.clean.calls
    taken = take(wiring, calls, lambda final: asked.metric(calls, final), {})
    return taken, {site: asked.moved(site) for site in network.sites}


def test_gradients_are_those_of_every_site_and_of_what_each_mlp_reads() -> None:
    with wired("gpt_neox") as wiring:
        network = wiring.network
        taken, _ = linear(wiring)
        asked = asked_of(small("gpt_neox"), None, *pairs(5), network)
        expected, final = gradients(asked)
        torch.testing.assert_close(taken.final, final)
        for site, gradient in expected.items():
            torch.testing.assert_close(taken.gradient[site], gradient)
        for site, field in taken.field.items():
            stream = asked.clean.streams[site.point].requires_grad_()
            own, _ = network.passed(asked.clean.calls, site, stream)
            torch.testing.assert_close(field, torch.autograd.grad(own, stream, expected[site])[0])


def test_an_end_that_no_map_makes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with wired("gpt2") as wiring:
        network = wiring.network
        site = next(iter(wiring.reads))
        assert site.sublayer is not None
        state = look(network, network.calls(small("gpt2").batch(prompts(1, 4))))
        strange = site.sublayer.entrance.c_attn
        monkeypatch.setattr(strange, "forward", lambda x: torch.cat([x, x, x], -1).detach())
        monkeypatch.setattr(strange, "_parameters", {})
        with pytest.raises(UnsupportedModelError, match="no linear map"):
            head_reads(network, site.sublayer, state, site.point)
