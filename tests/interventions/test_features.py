"""Features are set to a value: what they write moves by the difference, wherever they write."""

import pytest
import torch
from torch import Tensor

from families import loaded, prompts
from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Transcoder
from whence.components.sets import DictionarySet
from whence.interventions.generating import generate
from whence.interventions.kinds import ablate, set_value, steer
from whence.interventions.running import intervene
from whence.interventions.session import Freeze
from whence.model.hooks import hooked, main_output
from whence.model.model import Model

PROMPT = prompts()[0]
RELU = Activation("relu")
EVERYTHING = Freeze(attention=True, norms=True, layers=range(3))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


def transcoders(**more: object) -> DictionarySet:
    made = [
        Transcoder(layer, noise(12, 32), noise(12), noise(12, 32, seed=1), noise(32), RELU, **more)
        for layer in range(3)
    ]
    return DictionarySet(tuple(made))


def recorded(model: Model, module: torch.nn.Module, before: bool) -> Tensor:
    seen: list[Tensor] = []
    after = [] if before else [(module, lambda _, __, out: seen.append(main_output(out)))]
    with torch.no_grad(), hooked(after, [(module, lambda args, _: seen.append(args[0]))] if before else []):
        model.hf(input_ids=PROMPT[None], use_cache=False)
    return seen[0][0]


def test_setting_a_feature_moves_the_write_by_the_difference() -> None:
    model, dictionary = loaded("llama"), transcoders()
    mlp = model.hf.model.layers[1].mlp
    now = torch.relu(recorded(model, mlp, before=True) @ noise(12, 32).T + noise(12))[:, 4]
    outcome = intervene(
        model,
        PROMPT,
        [set_value("1.mlp.feature:4", 2.5, positions=[2, 6])],
        dictionary=dictionary,
        watch=["1.mlp_out", "1.mlp.feature:4"],
    )
    moved = outcome.watched["1.mlp_out"].changed[0] - outcome.watched["1.mlp_out"].clean[0]
    for position in range(9):
        step = (2.5 - now[position]) * noise(12, 32, seed=1)[4] if position in (2, 6) else torch.zeros(32)
        torch.testing.assert_close(moved[position], step, atol=1e-5, rtol=1e-4)
    seen = outcome.watched["1.mlp.feature:4"]
    torch.testing.assert_close(seen.clean[0], now)
    assert seen.clean_pre_activation is not None
    torch.testing.assert_close(seen.clean_pre_activation[0].relu(), now)


def test_a_cross_layer_feature_writes_at_every_later_layer() -> None:
    model = loaded("llama")
    decoders = tuple(noise(12, 3 - layer, 32, seed=layer) for layer in range(3))
    dictionary = DictionarySet(
        (
            CrossLayerTranscoder(
                W_enc=tuple(noise(12, 32, seed=9) for _ in range(3)),
                b_enc=tuple(noise(12) for _ in range(3)),
                W_dec=decoders,
                b_dec=tuple(noise(32) for _ in range(3)),
                activation=RELU,
            ),
        )
    )
    watch = [f"{layer}.mlp_out" for layer in range(3)]
    outcome = intervene(
        model, PROMPT, [steer("1.mlp.feature:4@3", add=2.0)], dictionary=dictionary, watch=watch, freeze=EVERYTHING
    )
    moved = [outcome.watched[key].changed[0, 3] - outcome.watched[key].clean[0, 3] for key in watch]
    assert float(moved[0].abs().max()) == 0
    for at in (1, 2):
        torch.testing.assert_close(moved[at], 2.0 * decoders[1][4, at - 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "attn_z"])
def test_an_sae_feature_is_read_and_written_at_its_site(site: str) -> None:
    model = loaded("llama")
    sae = SAE(1, noise(12, 32), noise(12), noise(12, 32, seed=1), noise(32), RELU, site)
    outcome = intervene(
        model,
        PROMPT,
        [set_value(f"1.{site}.feature:4@3", 2.5)],
        dictionary=sae,
        watch=[f"1.{site}", f"1.{site}.feature:4"],
    )
    value = outcome.watched[f"1.{site}"]
    now = torch.relu(value.clean[0] @ noise(12, 32).T + noise(12))[:, 4]
    torch.testing.assert_close(outcome.watched[f"1.{site}.feature:4"].clean[0], now, atol=1e-5, rtol=1e-4)
    step = (2.5 - now[3]) * noise(12, 32, seed=1)[4]
    torch.testing.assert_close(value.changed[0, 3] - value.clean[0, 3], step, atol=1e-5, rtol=1e-4)


def test_two_features_of_one_site_are_both_read_before_either_writes() -> None:
    model = loaded("llama")
    sae = SAE(1, noise(12, 32), noise(12), noise(12, 32, seed=1), noise(32), RELU, "resid_post")
    pair = [set_value("1.resid_post.feature:4@3", 2.5), set_value("1.resid_post.feature:5@3", 1.0)]
    one, other = intervene(model, PROMPT, [pair, pair[::-1]], dictionary=sae).logits
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_without_its_error_a_write_is_what_the_dictionary_makes_of_it() -> None:
    model, dictionary = loaded("llama"), transcoders()
    x = recorded(model, model.hf.model.layers[1].mlp, before=True)
    made = torch.relu(x @ noise(12, 32).T + noise(12)) @ noise(12, 32, seed=1) + noise(32)
    outcome = intervene(model, PROMPT, [ablate("1.mlp.error")], dictionary=dictionary, watch=["1.mlp_out"])
    torch.testing.assert_close(outcome.watched["1.mlp_out"].changed[0], made, atol=1e-5, rtol=1e-4)


def test_a_held_layers_feature_is_set_from_what_it_was_when_held() -> None:
    model, dictionary = loaded("llama"), transcoders()
    x = recorded(model, model.hf.model.layers[1].mlp, before=True)
    now = torch.relu(x @ noise(12, 32).T + noise(12))[3, 4]
    outcome = intervene(
        model,
        PROMPT,
        [ablate("0.mlp"), set_value("1.mlp.feature:4@3", 2.5)],
        dictionary=dictionary,
        watch=["1.mlp_out"],
        freeze=Freeze(layers=[1]),
    )
    moved = outcome.watched["1.mlp_out"].changed[0, 3] - outcome.watched["1.mlp_out"].clean[0, 3]
    torch.testing.assert_close(moved, (2.5 - now) * noise(12, 32, seed=1)[4], atol=1e-5, rtol=1e-4)


def test_a_skip_stays_live_where_its_layer_is_held() -> None:
    model, skip = loaded("llama"), noise(32, 32, seed=7)
    dictionary = transcoders(W_skip=skip)
    read, out = model.hf.model.layers[2].mlp, "2.mlp_out"
    before = recorded(model, read, before=True)
    outcome = intervene(
        model,
        PROMPT,
        [[ablate("1.attn@3")], [ablate("0.attn@2")]],
        dictionary=dictionary,
        watch=[out, "2.resid_mid"],
        freeze=EVERYTHING,
    )
    norm = model.hf.model.layers[2].post_attention_layernorm
    after = outcome.watched["2.resid_mid"].changed
    scale = before / (norm.weight * outcome.watched["2.resid_mid"].clean[0])
    x = norm.weight * after * scale.median(-1, keepdim=True).values
    expected = (x - before) @ skip.T
    torch.testing.assert_close(
        outcome.watched[out].changed - outcome.watched[out].clean, expected, atol=1e-4, rtol=1e-3
    )


def test_what_a_dictionary_lacks_is_said() -> None:
    model, dictionary = loaded("llama"), transcoders()
    for key, sentence in {
        "1.mlp.feature:12": "features 0 to 11 in layer 1",
        "1.resid_post.feature:0": "features are called mlp.feature",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            intervene(model, PROMPT, [ablate(key)], dictionary=dictionary)
    with pytest.raises(ValueError, match="it has layers 1"):
        intervene(model, PROMPT, [ablate("0.mlp.feature:0")], dictionary=dictionary[1])
    narrow = Transcoder(0, noise(4, 16), noise(4), noise(4, 16), noise(16), RELU)
    with pytest.raises(ValueError, match="width 16"):
        intervene(model, PROMPT, [ablate("0.mlp.feature:0")], dictionary=narrow)


def test_of_two_interventions_on_a_feature_the_later_is_given_what_the_earlier_left() -> None:
    model, dictionary = loaded("llama"), transcoders()
    lists = [
        [set_value("1.mlp.feature:4", 3.0), set_value("1.mlp.feature:4", 3.0)],
        [set_value("1.mlp.feature:4", 3.0)],
        [set_value("1.mlp.feature:4", 1.0), steer("1.mlp.feature:4@3", add=2.0), steer("1.mlp.feature:4@5", scale=2.0)],
        [
            set_value("1.mlp.feature:4", 1.0, positions=[0, 1, 2, 4, 6, 7, 8]),
            set_value("1.mlp.feature:4@3", 3.0),
            set_value("1.mlp.feature:4@5", 2.0),
        ],
    ]
    twice, once, chain, apart = intervene(model, PROMPT, lists, dictionary=dictionary).logits
    torch.testing.assert_close(twice, once, atol=0, rtol=0)
    torch.testing.assert_close(chain, apart, atol=1e-5, rtol=1e-5)
    assert float((once - chain).abs().max()) > 1e-3


def test_a_skip_is_held_at_a_special_first_token_as_in_a_graph() -> None:
    model, dictionary = loaded("llama"), transcoders(W_skip=noise(32, 32, seed=7))
    special, plain = torch.cat([torch.tensor([0]), PROMPT[1:]]), PROMPT
    for ids, held in ((special, True), (plain, False)):
        outcome = intervene(
            model, ids, [ablate("embed@0")], dictionary=dictionary, watch=["1.mlp_out"], freeze=EVERYTHING
        )
        seen = outcome.watched["1.mlp_out"]
        assert (float((seen.changed[0, 0] - seen.clean[0, 0]).abs().max()) == 0) is held


def test_a_skip_is_let_go_with_what_is_frozen_once_the_prompt_has_passed() -> None:
    model, dictionary = loaded("llama"), transcoders(W_skip=noise(32, 32, seed=7))
    written = generate(model, PROMPT, [ablate("1.attn")], max_new_tokens=3, dictionary=dictionary, freeze=EVERYTHING)
    assert written.ids.shape == (1, 12)


def test_a_feature_that_is_set_is_no_part_of_the_error_in_whatever_order_they_come() -> None:
    model, dictionary = loaded("llama"), transcoders()
    x = recorded(model, model.hf.model.layers[1].mlp, before=True)
    features = torch.relu(x @ noise(12, 32).T + noise(12))
    features[3, 4] = 2.5
    pair = [set_value("1.mlp.feature:4@3", 2.5), ablate("1.mlp.error")]
    error = [set_value("1.mlp.error", 7.0), ablate("1.mlp.error"), set_value("1.mlp.feature:4@3", 2.5)]
    outcome = intervene(model, PROMPT, [pair, pair[::-1], error], dictionary=dictionary, watch=["1.mlp_out"])
    made = features @ noise(12, 32, seed=1) + noise(32)
    for write in outcome.watched["1.mlp_out"].changed:
        torch.testing.assert_close(write, made, atol=1e-5, rtol=1e-4)
