"""Ablation of nodes against forward passes of the whole model with hooks that split and join by formula."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import Wide, oracle, pairs, random_saes, small
from circuit_chosen import ablated, circuit_of, gone_values, some_pairs
from whence.engine.circuits.choosing import network_of
from whence.methods.circuit_evaluation import completeness, faithfulness
from whence.results.circuit_faithfulness import CircuitScore
from whence.targets.pairs import Pairs

THREE = {"attn_out": 32, "mlp_out": 32, "resid_post": 32}
FAMILIES = {"gpt2": THREE, "gpt_neox": THREE, "gemma2": {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32}}
SLOTS = ("a", "b", "c", "d")


def kept_at(key: str, n: int, slots: int, complement: bool, errors: str) -> tuple[Tensor, Tensor]:
    """Every third unit of a site, another third each slot and site."""
    first = sum(map(ord, key))
    grid = (torch.arange(n + 1) + torch.arange(slots)[:, None] + first) % 3 == 0
    grid = ~grid if complement else grid
    error = torch.full((slots,), errors == "keep") if errors != "default" else grid[:, -1]
    return grid[:, :-1], error


def third(site: Any, unit: int, slot: int) -> bool:
    return site.layer is not None and (unit + slot + sum(map(ord, site.key))) % 3 == 0


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
@pytest.mark.parametrize("errors", ["default", "keep", "remove"])
def test_an_ablated_model_is_the_model_with_its_sites_mixed_by_hooks(name: str, ablation: Any, errors: Any) -> None:
    saes, model, (ids, other) = random_saes(range(2), FAMILIES[name]), small(name), pairs()
    circuit = circuit_of(model, saes, third, SLOTS)
    with Wide():
        slow = oracle(model, saes)
        gone = gone_values(slow, other, ablation)
        sizes = {key: one.shape[-1] for key, (one, _) in gone.items()}
        how: dict[str, Any] = {"ablation": ablation, "errors": errors}
        for score in (faithfulness, completeness):
            found = score(circuit, model, saes, some_pairs(ids, other), **how)
            complement = score is completeness
            wanted = ablated(slow, ids, gone, lambda key, c=complement: kept_at(key, sizes[key], 4, c, errors))
            close(found.chosen, wanted)
            assert not torch.allclose(found.chosen, found.model)
        nothing = torch.zeros(4, dtype=torch.bool)
        none = lambda key: (nothing[:, None].expand(4, sizes[key]), nothing | (errors == "keep"))  # noqa: E731
        close(found.empty, ablated(slow, ids, gone, none))
        with torch.no_grad():
            close(found.model, slow.run(ids, lambda *_: None))


def test_a_node_without_a_slot_is_kept_at_every_token() -> None:
    saes, model, (ids, other) = random_saes(range(2), THREE), small("gpt2"), pairs()
    summed = circuit_of(model, saes, lambda site, unit, _: third(site, unit, 0))
    slotted = circuit_of(model, saes, lambda site, unit, _: third(site, unit, 0), SLOTS)
    one, other_one = (faithfulness(c, model, saes, some_pairs(ids, other)) for c in (summed, slotted))
    torch.testing.assert_close(one.chosen, other_one.chosen)
    assert 4 * one.nodes == other_one.nodes


def test_lower_layers_are_left_alone_below_start_layer() -> None:
    saes, model, (ids, other) = random_saes(range(2), THREE), small("gpt2"), pairs()
    circuit = circuit_of(model, saes, third, SLOTS)
    with Wide():
        slow = oracle(model, saes)
        gone = {key: one for key, one in gone_values(slow, other, "mean").items() if key[0] == "1"}
        found = faithfulness(circuit, model, saes, some_pairs(ids, other), start_layer=1)
        close(found.chosen, ablated(slow, ids, gone, lambda k: kept_at(k, gone[k][0].shape[-1], 4, False, "default")))
    assert found.nodes == sum(third(site, u, s) for site, u, s in units(model, saes) if site.layer == 1)
    above = faithfulness(circuit, model, saes, some_pairs(ids, other), start_layer=2)
    assert torch.equal(above.chosen, above.model)
    assert above.value != above.value  # nothing is ablated, so there is nothing to be a share of
    assert (above.nodes, above.active, above.share) == (0, 0, 0.0)


def units(model: Any, saes: Any) -> list[tuple[Any, int, int]]:
    return [(s, u, t) for s in network_of(model, saes).sites for u in range(s.units.count) for t in range(4)]


def test_token_embeddings_stay_unless_they_are_asked_to_be_a_node() -> None:
    model, ids, other = small("gpt2"), pairs()[0], pairs(seed=2)[0]  # another last token too
    circuit = circuit_of(model, ["attn", "mlp"], lambda site, *_: site.name == "mlp")
    how: dict[str, Any] = {"ablation": "resample"}
    kept = faithfulness(circuit, model, ["attn", "mlp"], some_pairs(ids, other), **how)
    node = faithfulness(circuit, model, ["attn", "mlp"], some_pairs(ids, other), embeddings="default", **how)
    assert not torch.allclose(kept.empty, node.empty)
    with torch.no_grad():
        away = oracle(model, ["attn", "mlp"]).run(other, lambda *_: None)
    close(node.empty, away)  # everything says what it says on the patch prompts
    assert (kept.active, node.active) == (4, 5)
    with_embed = circuit_of(model, ["attn", "mlp"], lambda site, *_: site.name in ("mlp", "embed"))
    again = faithfulness(with_embed, model, ["attn", "mlp"], some_pairs(ids, other), embeddings="default", **how)
    torch.testing.assert_close(again.chosen, kept.chosen)


@pytest.mark.parametrize("units", [["attn.head", "mlp.neuron"], ["attn", "mlp"]])
def test_units_without_errors_are_ablated_alike(units: list[str]) -> None:
    model, (ids, other) = small("llama"), pairs()
    found = faithfulness(circuit_of(model, units), model, units, some_pairs(ids, other))
    torch.testing.assert_close(found.chosen, found.model)
    empty = faithfulness(circuit_of(model, units, lambda *_: False), model, units, some_pairs(ids, other))
    assert torch.equal(empty.chosen, empty.empty)
    assert (empty.value, empty.nodes, empty.share) == (0.0, 0, 0.0)
    with Wide():
        slow = oracle(model, units)
        clean = slow.values(ids)
        away = {key: x.mean(0, keepdim=True).expand_as(x) for key, (x, _) in slow.values(other).items()}
        with torch.no_grad():
            wanted = slow.run(ids, lambda part, _: clean[part.key][0] if part.key == "embed" else away[part.key])
        close(faithfulness(circuit_of(model, units), model, units, some_pairs(ids, other)).empty, wanted)


def test_mixed_lengths_and_batch_sizes_change_nothing_for_any_example() -> None:
    model, saes = small("gpt_neox"), random_saes(range(2), THREE)
    (ids, other), (long, long_other) = pairs(4), pairs(6, 2)
    circuit = circuit_of(model, saes, lambda site, unit, _: third(site, unit, 0))
    rows = [tuple(map(tuple, one.tolist())) for one in (ids, other, long, long_other)]
    mixed = Pairs(rows[0] + rows[2], rows[1] + rows[3], (5, 6, 5, 6), (7, 8, 7, 8))

    def scores(batch_size: int) -> CircuitScore:
        return faithfulness(circuit, model, saes, mixed, ablation="resample", batch_size=batch_size)

    found = scores(3)
    alone = [faithfulness(circuit, model, saes, mixed[i : i + 1], ablation="resample") for i in range(4)]
    for name in ("chosen", "empty", "model"):
        torch.testing.assert_close(getattr(found, name), torch.cat([getattr(one, name) for one in alone]))
        torch.testing.assert_close(getattr(found, name), getattr(scores(1), name))
    by_mean = faithfulness(circuit, model, saes, mixed, batch_size=3)
    torch.testing.assert_close(by_mean.chosen, faithfulness(circuit, model, saes, mixed, batch_size=4).chosen)


def test_the_mean_over_mixed_lengths_is_that_of_all_tokens() -> None:
    model, saes = small("gpt2"), random_saes([1], {"resid_post": 32})
    (ids, _), (long, _) = pairs(3), pairs(5, 2)
    rows = tuple(map(tuple, ids.tolist())) + tuple(map(tuple, long.tolist()))
    mixed = Pairs(rows, None, (5, 6, 5, 6), None)
    found = faithfulness(circuit_of(model, saes, lambda *_: False), model, saes, mixed)
    slow = oracle(model, saes)
    part = slow.parts[0]
    tokens = torch.cat([slow.values(one)[part.key][0].flatten(0, 1) for one in (ids, long)])
    features = torch.relu(tokens @ saes[0].W_enc.T + saes[0].b_enc).mean(0)
    error = (tokens - torch.relu(tokens @ saes[0].W_enc.T + saes[0].b_enc) @ saes[0].W_dec - saes[0].b_dec).mean(0)
    vector = features @ saes[0].W_dec + saes[0].b_dec + error
    with torch.no_grad():
        logits = model.hf.lm_head(model.hf.transformer.ln_f(vector))
    torch.testing.assert_close(found.empty, -logits[torch.tensor([5, 6, 5, 6])])
