"""Importance networks against the same written out: token by token, component by component."""

import math
from itertools import pairwise

import pytest
import torch

from whence.components.importance.network import Network

EXAMPLES, LENGTH, WIDTHS, COUNTS = 2, 5, {"1.attn.q": 6, "0.mlp.up": 4}, {"1.attn.q": 3, "0.mlp.up": 2}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INPUTS = {site: random(EXAMPLES, LENGTH, width, seed=width) for site, width in WIDTHS.items()}
ROWS = torch.arange(EXAMPLES)
TOKENS = [(example, pos) for example in range(EXAMPLES) for pos in range(LENGTH)]


def layers(prefix, *sizes, count=None):
    lead = () if count is None else (count,)
    return {
        f"{prefix}{n}.{end}": random(*lead, *((into, out) if end == "W" else (out,)), seed=7 * n + len(prefix))
        / into**0.5
        for n, (into, out) in enumerate(pairwise(sizes))
        for end in "Wb"
    }


def gelu(x):
    return torch.stack([value * 0.5 * (1 + math.erf(float(value) / math.sqrt(2))) for value in x.flatten()])


def passed(x, weights):
    """A vector through layers [(W, b), ...]."""
    for n, (W, b) in enumerate(weights):
        x = (gelu(x) if n else x) @ W + b
    return x


def of(tensors, prefix):
    names = sorted(name for name in tensors if name.startswith(prefix) and name.endswith(".W"))
    return [(tensors[name], tensors[name[:-1] + "b"]) for name in names]


def root_mean_square_normed(x, gain=1.0):
    return x / (x.square().mean() + torch.finfo(x.dtype).eps).sqrt() * gain


def attended(rows, tensors, prefix, heads, base):
    """Attention of one example, both ways, a query and a head at a time."""
    part = rows.shape[1] // heads
    ends = {end: rows @ tensors[f"{prefix}{end}"].T for end in "qkv"}
    out = torch.zeros_like(rows)
    for head in range(heads):
        at = slice(head * part, (head + 1) * part)
        keys = [turned(key[at], pos, base) for pos, key in enumerate(ends["k"])]
        for pos, query in enumerate(ends["q"]):
            scores = torch.stack([turned(query[at], pos, base) @ key for key in keys]) / math.sqrt(part)
            out[pos, at] = scores.softmax(0) @ ends["v"][:, at]
    return out @ tensors[f"{prefix}o"].T


def turned(x, pos, base):
    half, out = len(x) // 2, x.clone()
    for j in range(half):
        angle = pos * base ** (-j / half)
        out[j] = x[j] * math.cos(angle) - x[j + half] * math.sin(angle)
        out[j + half] = x[j + half] * math.cos(angle) + x[j] * math.sin(angle)
    return out


def said(network, rows=ROWS):
    """Before the sigmoid nothing is lost: it is the normal one, undone."""
    return {site: torch.logit(one) for site, one in network(INPUTS, rows).items()}


def same(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)


def test_a_network_a_component_reads_its_activation():
    V = {site: random(width, COUNTS[site], seed=3) for site, width in WIDTHS.items()}
    tensors = {k: t for site, n in COUNTS.items() for k, t in layers(f"{site}.", 1, 4, 1, count=n).items()}
    found = said(Network("mlp", COUNTS, tensors, "normal", reads=V))
    for site, (example, pos) in ((site, token) for site in COUNTS for token in TOKENS):
        for c in range(COUNTS[site]):
            a = INPUTS[site][example, pos] @ V[site][:, c : c + 1]
            wanted = passed(a, [(W[c], b[c]) for W, b in of(tensors, site)])
            same(found[site][example, pos, c : c + 1], wanted)


def test_a_network_a_component_reads_the_whole_input():
    tensors = {k: t for site, n in COUNTS.items() for k, t in layers(f"{site}.", WIDTHS[site], 4, 1, count=n).items()}
    found = said(Network("vector_mlp", COUNTS, tensors, "normal"))
    for site, (example, pos) in ((site, token) for site in COUNTS for token in TOKENS):
        for c in range(COUNTS[site]):
            wanted = passed(INPUTS[site][example, pos], [(W[c], b[c]) for W, b in of(tensors, site)])
            same(found[site][example, pos, c : c + 1], wanted)


def test_a_network_a_matrix():
    tensors = {k: t for site, n in COUNTS.items() for k, t in layers(f"{site}.", WIDTHS[site], 5, 4, n).items()}
    found = said(Network("shared_mlp", COUNTS, tensors, "normal"))
    for site, (example, pos) in ((site, token) for site in COUNTS for token in TOKENS):
        same(found[site][example, pos], passed(INPUTS[site][example, pos], of(tensors, site)))


def test_one_network_takes_all_inputs_in_the_order_of_its_counts():
    tensors = layers("", sum(WIDTHS.values()), 5, sum(COUNTS.values()))
    found = said(Network("global_mlp", COUNTS, tensors, "normal"))
    for example, pos in TOKENS:
        wanted = passed(torch.cat([INPUTS[site][example, pos] for site in COUNTS]), of(tensors, ""))
        same(torch.cat([found[site][example, pos] for site in COUNTS]), wanted)


def test_a_transformer_attends_over_all_positions():
    tensors = layers("input.", sum(WIDTHS.values()), 8) | layers("output.", 8, sum(COUNTS.values()))
    for n in range(2):
        tensors |= {f"block.{n}.attn.{end}": random(8, 8, seed=n + ord(end)) / 3 for end in "qkvo"}
        tensors |= layers(f"block.{n}.mlp.", 8, 5, 8)
    settings = {"blocks": 2, "heads": 2, "rope_base": 50.0}
    found = said(Network("global_transformer", COUNTS, tensors, "normal", settings=settings))
    for example in range(EXAMPLES):
        together = [torch.cat([root_mean_square_normed(INPUTS[s][example, p]) for s in COUNTS]) for p in range(LENGTH)]
        x = torch.stack([passed(one, of(tensors, "input.")) for one in together])
        for n in range(2):
            normed = torch.stack([root_mean_square_normed(one) for one in x])
            x = x + attended(normed, tensors, f"block.{n}.attn.", 2, 50.0)
            x = x + torch.stack([passed(root_mean_square_normed(one), of(tensors, f"block.{n}.mlp.")) for one in x])
        wanted = torch.stack([passed(one, of(tensors, "output.")) for one in x])
        same(torch.cat([found[site][example] for site in COUNTS], dim=-1), wanted)


@pytest.mark.parametrize("heads", [None, 2])
def test_a_reverse_residual_passes_groups_on(heads):
    first, second = COUNTS
    tensors = {}
    for n, site in enumerate(COUNTS):
        tensors |= layers(f"group.{n}.input.", WIDTHS[site], 8) | layers(f"group.{n}.reader.", 8, 5, COUNTS[site])
        tensors[f"group.{n}.reader_norm"] = random(8, seed=n)
    tensors |= layers("group.0.transition.", 8, 6, 8) | {"group.0.transition_norm": random(8, seed=5)}
    tensors |= {f"group.0.attn.{end}": random(8, 8, seed=ord(end)) / 3 for end in "qkvo"}
    tensors["group.0.attn_norm"] = random(8, seed=6)
    settings = {"groups": [[first], [second]], "heads": heads, "rope_base": 50.0}
    found = said(Network("global_reverse_residual", COUNTS, tensors, "normal", settings=settings))

    def each(x, prefix, norm):
        return torch.stack([passed(root_mean_square_normed(one, tensors[norm]), of(tensors, prefix)) for one in x])

    for example in range(EXAMPLES):
        x = torch.stack([passed(one, of(tensors, "group.0.input.")) for one in INPUTS[first][example]])
        if heads is not None:
            normed = torch.stack([root_mean_square_normed(one, tensors["group.0.attn_norm"]) for one in x])
            x = x + attended(normed, tensors, "group.0.attn.", heads, 50.0)
        x = x + each(x, "group.0.transition.", "group.0.transition_norm")
        same(found[first][example], each(x, "group.0.reader.", "group.0.reader_norm"))
        x = x + torch.stack([passed(one, of(tensors, "group.1.input.")) for one in INPUTS[second][example]])
        same(found[second][example], each(x, "group.1.reader.", "group.1.reader_norm"))


def test_tokens_are_read_as_rows_of_V():
    V, tokens = random(9, 3), torch.tensor([[4, 0]])
    tensors = layers("", 3, 3)
    network = Network("global_mlp", {"embed.matrix": 3}, tensors, "normal", reads={"embed.matrix": V})
    found = torch.logit(network({"embed.matrix": tokens}, ROWS[:1])["embed.matrix"])
    same(found[0], torch.stack([V[4], V[0]]) @ tensors["0.W"] + tensors["0.b"])


def test_a_network_answers_in_its_own_precision():
    tensors = {name: tensor.float() for name, tensor in layers("1.attn.q.", 6, 3).items()}
    network = Network("shared_mlp", {"1.attn.q": 3}, tensors)
    assert network(INPUTS, ROWS)["1.attn.q"].dtype == torch.float32
    assert network.to("cpu").said() == network.said()


def test_an_unknown_kind_or_sigmoid_is_named_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"no kind of importance network is called 'mpl'; known are mlp, vector_mlp"):
        Network("mpl", COUNTS, {})
    with pytest.raises(ValueError, match=r"no sigmoid is called 'soft'; known are leaky_hard"):
        Network("mlp", COUNTS, {}, "soft")
