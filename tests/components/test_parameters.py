import json
from dataclasses import replace

import pytest
import torch

from whence.components.importance.given import Given, Ones
from whence.components.importance.network import Network
from whence.components.parameters import ParameterComponents, Part

Q, UP = "0.attn.q", "0.mlp.up"
ROWS = torch.arange(2)
INPUTS = {Q: torch.ones(2, 3, 8), UP: torch.ones(2, 3, 8)}


def parts():
    made = torch.Generator().manual_seed(0)
    sizes = {Q: (8, 5, 4), UP: (8, 3, 16)}
    return {
        site: Part(site, torch.randn(into, count, generator=made), torch.randn(count, out, generator=made))
        for site, (into, count, out) in sizes.items()
    }


def components(importance=None):
    return ParameterComponents(parts(), importance or Ones({Q: 5, UP: 3}), "here", "1")


def saying(**given):
    wrong = {Q: torch.full((2, 3, 5), 0.5), UP: torch.full((2, 3, 3), 0.5)} | given
    return components(lambda inputs, rows: wrong).importances(INPUTS, ROWS)


def test_importances_are_what_the_function_says():
    found = saying()
    assert torch.equal(found[Q], torch.full((2, 3, 5), 0.5))
    assert list(found) == [Q, UP]


def test_a_function_is_given_the_inputs_and_the_rows_of_the_data():
    seen = []

    def importance(inputs, rows):
        seen.append((inputs, rows))
        return Ones({Q: 5, UP: 3})(inputs, rows)

    components(importance).importances(INPUTS, torch.tensor([4, 9]))
    assert seen[0][0] is INPUTS
    assert seen[0][1].tolist() == [4, 9]


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({UP: torch.ones(2, 3, 4)}, ValueError, r"0\.mlp\.up have shape \(2, 3, 4\), and .* = \(2, 3, 3\) is wanted"),
        ({UP: torch.full((2, 3, 3), 1.5)}, ValueError, r"0\.mlp\.up go from 1\.5 to 1\.5; they are finite and in"),
        ({UP: torch.full((2, 3, 3), -0.1)}, ValueError, r"0\.mlp\.up go from -0\.1 to -0\.1"),
        ({UP: torch.full((2, 3, 3), float("nan"))}, ValueError, r"0\.mlp\.up go from nan to nan"),
        ({UP: torch.ones(2, 3, 3, dtype=torch.long)}, TypeError, r"0\.mlp\.up are torch\.int64"),
        ({UP: [1.0]}, TypeError, r"0\.mlp\.up are list"),
    ],
)
def test_importances_of_another_kind_are_named(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        saying(**wrong)


def test_a_site_without_importances_is_named():
    with pytest.raises(ValueError, match=r"says nothing of 0\.mlp\.up; it gives one tensor for each"):
        components(lambda inputs, rows: {Q: torch.ones(2, 3, 5)}).importances(INPUTS, ROWS)


def test_a_function_that_gives_no_dictionary_is_refused():
    with pytest.raises(TypeError, match="gave a Tensor; it gives tensors by site"):
        components(lambda inputs, rows: torch.ones(2, 3, 5)).importances(INPUTS, ROWS)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"0\.attn\.q: V \(8, 5\), U \(4, 8\) and alive do not speak of the same"):
        Part(Q, torch.zeros(8, 5), torch.zeros(4, 8))
    with pytest.raises(ValueError, match="do not speak of the same number"):
        components().kept({Q: torch.ones(4, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"stand under their own sites, one or more; got 0\.attn\.q under 0\.mlp\.up"):
        ParameterComponents({UP: parts()[Q]}, Ones({UP: 5}))
    with pytest.raises(ValueError, match="one or more; got none"):
        ParameterComponents({}, Ones({}))


def test_kept_sets_alive_masks_and_leaves_the_rest():
    mask = torch.tensor([True, False, False, True, False])
    kept = components().kept({Q: mask})
    assert kept.parts[Q].ids.tolist() == [0, 3]
    assert kept.parts[UP].ids.tolist() == [0, 1, 2]
    assert kept.kept({UP: torch.zeros(3, dtype=torch.bool)}).parts[Q].ids.tolist() == [0, 3]
    assert (kept.source, kept.revision, kept.counts) == ("here", "1", {Q: 5, UP: 3})
    with pytest.raises(ValueError, match=r"alive masks for 0\.mlp\.down; decomposed are 0\.attn\.q, 0\.mlp\.up"):
        components().kept({"0.mlp.down": mask})


def test_a_model_of_other_sizes_is_refused():
    components().check_fits({Q: (8, 4), UP: (8, 16), "0.mlp.down": (16, 8)})
    with pytest.raises(ValueError, match=r"are for 0\.mlp\.up, which the model lacks; it has 0\.attn\.q"):
        components().check_fits({Q: (8, 4)})
    with pytest.raises(ValueError, match=r"0\.mlp\.up are for .in, out. = \(8, 16\), and the model.s has \(8, 32\)"):
        components().check_fits({Q: (8, 4), UP: (8, 32)})


def test_the_description_is_json_and_tells_numbers_apart():
    mask = torch.tensor([True, False, False, True, False])
    found = components().kept({Q: mask}).describe()
    assert json.loads(json.dumps(found)) == found
    assert found["sites"] == {Q: {"count": 5, "alive": 2}, UP: {"count": 3, "alive": 3}}
    assert (found["kind"], found["importance"]) == ("parameter_components", "ones")
    one = components()
    weights = {
        f"{site}.0.{end}": torch.ones(8, count)[0 if end == "b" else slice(None)]
        for site, count in one.counts.items()
        for end in "Wb"
    }
    network = Network("shared_mlp", one.counts, weights)
    other = Network("shared_mlp", one.counts, weights | {f"{Q}.0.b": torch.zeros(5)})
    part = one.parts[Q]
    variants = [
        one,
        one.kept({Q: mask}),
        replace(one, parts=one.parts | {Q: Part(Q, part.V + 1, part.U)}),
        replace(one, parts=one.parts | {Q: Part(Q, part.V, part.U + 1)}),
        replace(one, importance=network),
        replace(one, importance=other),
    ]
    assert len({each.describe()["fingerprint"] for each in variants}) == len(variants)
    assert components().describe() == components().describe()


def test_a_function_is_described_by_its_name():
    def always(inputs, rows):
        return {}

    assert components(always).describe()["importance"] == "function always"
    assert repr(components(always)) == (
        "ParameterComponents(2 matrices, 8 components, 8 alive, importance: function always)"
    )


def test_moving_takes_the_importances_along():
    given = Given({Q: torch.ones(2, 3, 5), UP: torch.ones(2, 3, 3)})
    moved = components(given).to("cpu")
    assert [part.site for part in moved] == [Q, UP]
    assert len(moved) == 2
    assert moved.importance is not given
    always = saying
    assert components(always).to("cpu").importance is always
