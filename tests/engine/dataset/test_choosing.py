from typing import Any

import pytest
import torch

from circuit_cases import Wide, random_saes
from dataset_families import Places
from dataset_oracle import Blocks, Cut, Oracle, features, heads, neurons, read, stored, vector
from dataset_parts import TOKENS, random_parts, rows, small, summed, wired
from whence.components.activation import Activation
from whence.components.head_reads import HeadReads
from whence.components.sae import SAE
from whence.components.transcoder import Transcoder
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.choosing import sites_of
from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.named import sorted_out
from whence.engine.dataset.wired import Options
from whence.model.model import Model
from whence.results.dataset_axes import METRICS

WIDTH = 16


def transcoders() -> list[Transcoder]:
    generator = torch.Generator().manual_seed(5)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    return [
        Transcoder(layer, normal(9, WIDTH), normal(9), normal(9, WIDTH) / 4, normal(WIDTH) / 4, Activation("relu"))
        for layer in (0, 1)
    ]


def truth(places: Places, cuts: list[Cut], *, settings: dict[str, Any], embeds: bool = True) -> Blocks:
    """An oracle cut there, at the embeddings and at the logits."""
    everywhere = (*(places.embeddings() if embeds else ()), *places.output(TOKENS), *cuts, *places.norms())
    batch = rows()
    lines = [row[:n] for row, n in zip(batch.ids, batch.lengths.tolist(), strict=True)]
    return Oracle(places.hf, everywhere, None, {}, torch.unique(batch.ids)).blocks(lines, **settings)


def compare(found: Blocks, own: Blocks, *, constants: bool = True) -> None:
    """The same pairs and numbers; constants only where no live sublayer adds its own norm's."""
    keep = lambda blocks: {pair for pair in blocks if constants or pair[1] != "bias"}  # noqa: E731
    assert keep(found) == keep(own)
    for pair in keep(found):
        for metric, block in found[pair].items():
            gap = (block - own[pair][metric]).abs().max()
            assert gap <= 1e-9 * own[pair][metric].abs().max() + 1e-12, (pair, metric, float(gap))


def sae_cut(place: str, one: SAE, reads: tuple[Any, bool], writes: Any) -> Cut:
    return features(place, reads, writes, (one.W_enc, one.b_enc), one.W_dec, one.b_dec)


SETTINGS = ({"live": False}, {"live": True, "weighting": "both"})


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_heads_and_neurons_read_by_covectors_and_pre_activations(settings: dict[str, Any]) -> None:
    model = small("llama biased")
    places, cuts = Places("llama biased", model.hf), list[Cut]()
    covectors = {f"1.attn.head:{h}.{end}": torch.arange(4.0) + h for h in (3, 0) for end in "qkv"}
    for layer in (0, 1):
        module = places.matrix(f"{layer}.attn.o")
        cuts.append(heads(f"{layer}.attn.head", module, 4))
        for end in ("gate", "up"):
            one = places.matrix(f"{layer}.glu.{end}")
            cuts.append(read(f"{layer}.mlp.neuron.{end}", one, torch.eye(12).double(), one.bias.detach()))
        cuts.append(neurons(f"{layer}.mlp.neuron", places.matrix(f"{layer}.glu.down"), f"{layer}.mlp.bias"))
    for end, groups in (("q", 4), ("k", 2), ("v", 2)):
        one, rows_ = places.matrix(f"1.attn.{end}"), torch.zeros(2, groups, 4).double()
        for row, h in enumerate((0, 3)):
            rows_[row, h * groups // 4] = torch.arange(4.0) + h
        flat = rows_.flatten(1)
        cuts.append(read(f"1.attn.head.{end}", one, flat, flat @ one.bias.detach()))
    with Wide():
        wiring = wired(model, ["attn.head", "mlp.neuron", HeadReads(covectors)], Options(METRICS, **settings))
        found = summed(wiring)
        own = truth(places, cuts, settings=settings)
    assert wiring.readings["1.attn.head.q"].ids.tolist() == [0, 3]
    compare(found, own)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_transcoders_beside_whole_attentions(settings: dict[str, Any]) -> None:
    model = small("gpt2")
    places, cuts = Places("gpt2", model.hf), list[Cut]()
    for layer, one in enumerate(transcoders()):
        block = model.hf.transformer.h[layer]
        cuts.append(vector(f"{layer}.attn", block.attn))
        cuts.append(
            features(f"{layer}.mlp", (block.mlp, True), block.mlp, (one.W_enc, one.b_enc), one.W_dec, one.b_dec)
        )
    with Wide():
        wiring = wired(model, [*transcoders(), "attn"], Options(METRICS, **settings))
        found = summed(wiring)
        own = truth(places, cuts, settings=settings)
    assert set(wiring.routes.values()) == {"stream"}
    compare(found, own)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_saes_of_the_stream_and_of_sublayers_with_live_sublayers_between(settings: dict[str, Any]) -> None:
    model = small("gpt2")
    (middle,) = random_saes([0], {"resid_post": WIDTH})
    attn, mlp = random_saes([1], {"attn_out": WIDTH, "mlp_out": WIDTH}, seed=2)
    first, second = model.hf.transformer.h
    cuts = [
        sae_cut("0.resid_post", middle, (first, False), first),
        sae_cut("1.attn_out", attn, (second.attn.c_proj, False), second.attn.c_proj),
        sae_cut("1.mlp_out", mlp, (second.mlp, False), second.mlp),
    ]
    with Wide():
        wiring = wired(model, [middle, attn, mlp], Options(METRICS, **settings))
        found = summed(wiring)
        own = truth(Places("gpt2", model.hf), cuts, settings=settings)
    assert set(wiring.routes.values()) == {"stream", "backward"}
    assert ("output", "embed") not in found  # the stream is cut
    compare(found, own, constants=False)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_an_sae_of_the_stream_cuts_it_where_it_stands(site: Any) -> None:
    model, window = small("opt"), Window()
    (one,) = random_saes([1], {site: WIDTH})
    with Wide():
        wiring = wired(model, [one, "attn", "mlp"])
        kernels = Kernels(wiring)
        seen = kernels.count(rows(), torch.arange(3), window)
        kernels.finish(window)
    before = {"resid_pre": ("0.attn", "0.mlp"), "resid_mid": ("0.attn", "0.mlp", "1.attn")}
    reached = {source for target, source in wiring.routes if target == f"1.{site}.feature"}
    assert reached == {"embed", "pos_embed", *before.get(site, ("0.attn", "0.mlp", "1.attn", "1.mlp"))}
    assert not reached & {source for target, source in wiring.routes if target == "output"} - {"1.mlp", "1.attn"}
    for target in (f"1.{site}.feature", "output"):
        heard = seen.heard[target]
        parts = [sums["attr"].sum(1) for pair, sums in window.sums.items() if pair[0] == target]
        assert torch.allclose(torch.stack(parts).sum(0), (heard.y * heard.weights["attr"]).sum(0), rtol=1e-9, atol=1e-9)


def test_an_sae_of_heads_outputs_reads_values_and_writes_through_the_output_map() -> None:
    model = small("llama biased")
    places, (one,) = Places("llama biased", model.hf), random_saes([1], {"attn_z": WIDTH})
    parts, o = random_parts(model, only=("attn.v",)), places.matrix("1.attn.o")
    through = stored(o)
    cut = features(
        "1.attn_z",
        (o, True),
        o,
        (one.W_enc, one.b_enc),
        one.W_dec @ through.T,
        one.b_dec @ through.T + o.bias.detach(),
    )
    oracle = places.oracle(parts, torch.unique(rows().ids), TOKENS)
    batch = rows()
    lines = [row[:n] for row, n in zip(batch.ids, batch.lengths.tolist(), strict=True)]
    with Wide():
        wiring = wired(model, [parts, one])
        own = Oracle(oracle.hf, (*oracle.cuts, cut), oracle.importances, oracle.alive, oracle.seen)
        found, blocks = summed(wiring), own.blocks(lines, live=False)
    assert wiring.routes["1.attn_z.feature", "1.attn.v"] == "values"
    compare(found, blocks, constants=False)


@pytest.mark.parametrize("only", [("attn.v", "attn.o", "glu.up", "glu.down"), ("attn.q", "glu.gate"), ("attn.o",)])
def test_what_is_not_decomposed_is_live_and_edges_run_through_it(only: tuple[str, ...]) -> None:
    model = small("llama biased")
    parts, batch = random_parts(model, only=only), rows()
    lines = [row[:n] for row, n in zip(batch.ids, batch.lengths.tolist(), strict=True)]
    settings: dict[str, Any] = {"live": False, "weighting": "target", "least": 0.2}
    with Wide():
        wiring = wired(model, parts, Options(METRICS, **settings))
        found = summed(wiring)
        own = Places("llama biased", model.hf).oracle(parts, torch.unique(batch.ids), TOKENS).blocks(lines, **settings)
    assert "backward" in wiring.routes.values()
    compare(found, own, constants=False)


def asked(model: Model, components: Any) -> None:
    _ = sites_of(model, sorted_out(components), torch.arange(4), TOKENS)


def test_two_for_one_place_are_refused() -> None:
    model = small("gpt2")
    with pytest.raises(ValueError, match=r"0\.mlp and 0\.mlp\.neuron\. Drop one"):
        asked(model, [*transcoders(), "mlp.neuron"])
    with pytest.raises(ValueError, match=r"0\.resid_post and 1\.resid_pre"):
        asked(model, [*random_saes([0], {"resid_post": WIDTH}), *random_saes([1], {"resid_pre": WIDTH})])


def test_matrices_of_another_size_and_matrices_that_the_model_lacks_are_refused() -> None:
    parts = random_parts(small("llama biased"))
    with pytest.raises(Exception, match=r"no matrix '0\.attn\.q'; near it there are 0\.attn_fused\.qkv"):
        asked(small("gpt2"), parts)
    kept = random_parts(small("llama biased"), only=("glu.gate",))
    wider = Model(_wider())
    with pytest.raises(
        ValueError, match=r"0\.glu\.gate are for \(in, out\) = \(16, 12\), and the model's has \(16, 8\)"
    ):
        asked(wider, kept)


def _wider() -> Any:
    from families import fresh

    return fresh(
        "llama", torch.float64, hidden_size=16, intermediate_size=8, num_attention_heads=4, num_key_value_heads=2
    )


def test_units_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="has no ssm sublayer"):
        asked(small("gpt2"), "ssm")
    with pytest.raises(ValueError, match=r"9\.attn\.head:0\.q is in no layer with attention; those are \[0, 1\]"):
        asked(small("gpt2"), ["attn.head", HeadReads({"9.attn.head:0.q": torch.ones(8)})])
    with pytest.raises(ValueError, match=r"2 heads of width 8"):
        asked(small("opt"), ["attn.head", HeadReads({"1.attn.head:0.q": torch.ones(3)})])
    with pytest.raises(Exception, match=r"no matrix '1\.attn\.q'"):
        asked(small("gpt2"), ["attn.head", HeadReads({"1.attn.head:0.q": torch.ones(8)})])


def test_dictionaries_without_a_place_of_their_own_are_refused() -> None:
    from whence.components.loading import load_dictionary
    from whence.demo import dictionary_path, model_path

    with pytest.raises(ValueError, match="writes at several layers"):
        asked(Model.from_pretrained(model_path()), load_dictionary(dictionary_path("cross_layer_transcoder")))
    with pytest.raises(ValueError, match="an SAE of the embeddings has no place"):
        asked(small("gpt2"), random_saes([0], {"embed": WIDTH}))
