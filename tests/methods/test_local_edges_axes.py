"""Local edges by name: what cannot be mixed, what is refused, and that widths, batches and padding change nothing."""

from typing import Any

import pytest
import torch

from circuit_cases import pairs, random_saes, small
from whence.methods.circuit import feature_circuit
from whence.methods.local_edges import local_edges
from whence.methods.local_edges_object import LocalEdges
from whence.results.local_edges import EdgeEffects, IndirectEffects
from whence.targets.pairs import Pairs

SAES = random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})  # 10, 12, 14, 16, 10, 12 features
RAGGED = Pairs(
    clean=((5, 9, 30), (7, 11, 12, 13, 50), (8, 21, 4, 40)),
    patch=((5, 10, 30), (7, 31, 12, 13, 50), (8, 22, 4, 40)),
    clean_answers=(5, 6, 7),
    patch_answers=(8, 9, 10),
)
UP, DOWN, BOTH = "0.resid_post", "1.resid_post", ["1.attn_out", "1.mlp_out"]
POSITIONS = ("example", "target_position", "source_position")


@pytest.fixture(scope="module")
def edges() -> LocalEdges:
    return local_edges(small("gpt2"), SAES, RAGGED)


def test_effects_gradients_and_indirect_effects_do_not_mix(edges: LocalEdges) -> None:
    effect, gradient = edges.effect(UP, DOWN), edges.gradient(UP, DOWN)
    indirect = edges.indirect(UP, DOWN, through=BOTH)
    assert not isinstance(gradient, EdgeEffects)
    for one, other in ((effect, gradient), (gradient, effect), (indirect, effect), (gradient, indirect)):
        for mixing in (lambda: one + other, lambda: one - other, lambda: one == other, lambda: one != other):  # noqa: B023
            with pytest.raises(TypeError, match=r"do not add up and are not compared.*times_difference\(\)"):
                mixing()
    assert effect + effect - effect == effect
    assert not (indirect - indirect).dense().any()
    with pytest.raises(TypeError):
        hash(effect)


def test_numbers_of_other_sites_or_ways_do_not_mix(edges: LocalEdges) -> None:
    with pytest.raises(ValueError, match="have other sites, examples or axes"):
        edges.effect(UP, DOWN) + edges.effect(UP, "1.attn_out")
    with pytest.raises(ValueError, match="have other sites, examples or axes"):
        edges.effect(UP, DOWN) + edges.effect(UP, DOWN).sum("example")
    with pytest.raises(ValueError, match=r"one goes through 1.attn_out and the other through 1.mlp_out: .*twice"):
        edges.indirect(UP, DOWN, through=BOTH[:1]) + edges.indirect(UP, DOWN, through=BOTH[1:])


def test_every_site_has_its_own_width_and_no_two_ends_can_be_swapped(edges: LocalEdges) -> None:
    effect, gradient = edges.effect(UP, DOWN), edges.gradient(UP, DOWN)
    assert tuple(effect.dense().shape) == (3, 5, 12 + 1, 5, 14 + 1)
    assert tuple(gradient.dense().shape) == (3, 5, 12 + 1, 5, 14 + 32)
    assert tuple(map(len, effect.axes.values())) == (3, 5, 13, 5, 15)
    assert tuple(effect.axes) == ("example", "target_position", "target_unit", "source_position", "source_unit")
    assert tuple(gradient.axes)[-1] == "source_coordinate"
    assert effect.axes["target_unit"][0] == "1.resid_post.feature:0"
    assert effect.axes["source_unit"][-1] == "0.resid_post.error"
    assert gradient.axes["source_coordinate"][-1] == "0.resid_post.error[31]"
    with pytest.raises(ValueError, match=r"target='0.resid_post.feature:3' is no unit of 1.resid_post here"):
        effect.at(example=0, target="0.resid_post.feature:3@1", source="1.resid_post.feature:3@1")


def test_a_number_is_found_by_the_keys_of_its_ends(edges: LocalEdges) -> None:
    effect, gradient = edges.effect(UP, "1.attn_out"), edges.gradient(UP, "1.attn_out")
    dense, slopes = effect.dense(), gradient.dense()
    ends: dict[str, Any] = {"target": "1.attn_out.error@4", "source": "0.resid_post.feature:3@1"}
    assert effect.at(example=1, **ends) == float(dense[1, 4, -1, 1, 3])
    assert gradient.at(example=1, **ends).tolist() == [float(slopes[1, 4, -1, 1, 3])]
    error = gradient.at(example=1, target="1.attn_out.error@4", source="0.resid_post.error@1")
    assert torch.equal(error, slopes[1, 4, -1, 1, 14:])
    assert effect.sum("example").at(**ends) == pytest.approx(float(dense[:, 4, -1, 1, 3].sum()))
    summed = effect.sum(*POSITIONS)
    assert summed.at(target="1.attn_out.error", source="0.resid_post.feature:3") == pytest.approx(
        float(dense[..., 3].sum((0, 1, 3))[-1])
    )
    into = edges.effect(DOWN, "metric")
    assert into.at(example=0, target="metric", source="1.resid_post.error@2") == float(into.dense()[0, 2, 0, 2, -1])


def test_sums_are_by_name(edges: LocalEdges) -> None:
    effect = edges.effect(UP, DOWN)
    torch.testing.assert_close(effect.sum("target_unit", "source_unit").dense(), effect.dense().sum((2, 4)))
    torch.testing.assert_close(effect.sum(*effect.axes).dense(), effect.dense().sum())
    assert isinstance(edges.indirect(UP, DOWN, through=BOTH).sum("example"), IndirectEffects)
    with pytest.raises(ValueError, match="sum over position: the axes of these numbers are example, target_position"):
        effect.sum("position")
    with pytest.raises(ValueError, match=r"the difference is another at every example and position"):
        edges.gradient(UP, DOWN).sum("example").times_difference()


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ({"target": f"{DOWN}.error@1", "source": f"{UP}.error@1"}, "give example="),
        (
            {"target": f"{DOWN}.error", "source": f"{UP}.error@1", "example": 0},
            "needs a position, such as 1.resid_post",
        ),
        ({"target": f"{DOWN}.error@3", "source": f"{UP}.error@1", "example": 0}, "the positions 0 to 2"),
        ({"target": f"{DOWN}.error@x", "source": f"{UP}.error@1", "example": 0}, "the positions 0 to 2"),
        ({"target": f"{DOWN}.feature:12@1", "source": f"{UP}.error@1", "example": 0}, "did you mean '1.resid_post.f"),
        (
            {"target": f"{DOWN}.error@1", "source": f"{UP}.error@1", "example": 3},
            "there are 3 examples, counted from 0",
        ),
        ({"target": "metric", "source": f"{UP}.error@1", "example": 0}, "target='metric': its key needs a position"),
    ],
)
def test_keys_that_name_nothing_are_refused(edges: LocalEdges, ends: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edges.effect(UP, DOWN).at(**ends)


def test_axes_that_were_summed_over_take_no_labels(edges: LocalEdges) -> None:
    ends: dict[str, Any] = {"target": f"{DOWN}.error@1", "source": f"{UP}.error@1"}
    with pytest.raises(ValueError, match="they were summed over; leave example= out"):
        edges.effect(UP, DOWN).sum("example").at(example=0, **ends)
    with pytest.raises(ValueError, match="needs no position: it was summed over"):
        edges.effect(UP, DOWN).sum("target_position").at(example=0, **ends)
    with pytest.raises(ValueError, match="the source's units were summed over"):
        edges.effect(UP, DOWN).sum("source_unit").at(example=0, **ends)


@pytest.mark.parametrize(
    ("source", "target", "through", "message"),
    [
        (
            "0.resid_post",
            "2.resid_post",
            None,
            "'2.resid_post' is no site of these dictionaries; they are embed, 0.attn",
        ),
        ("metric", "1.resid_post", None, "nothing follows the metric"),
        (
            "1.resid_post",
            "0.resid_post",
            None,
            "no path leads there; sites that act on 0.resid_post are embed, 0.attn_out",
        ),
        ("0.resid_post", "embed", None, "sites that act on embed are none"),
        (
            "embed",
            "1.resid_post",
            None,
            "these sites hold all that lies between: 0.attn_out, 0.mlp_out, 0.resid_post, 1.",
        ),
        ("0.resid_post", "1.resid_post", [], "through= names no site; between them are 1.attn_out, 1.mlp_out"),
        (
            "0.resid_post",
            "1.resid_post",
            ["0.mlp_out"],
            "through=0.mlp_out does not lie there; between them are 1.attn",
        ),
        ("1.attn_out", "1.mlp_out", ["0.mlp_out"], "through=0.mlp_out does not lie there; between them is no site"),
        (
            "embed",
            "1.resid_post",
            ["0.mlp_out"],
            "these sites hold all that lies between: 0.attn_out, 0.resid_post, 1.attn",
        ),
    ],
)
def test_pairs_without_a_path_say_what_lies_between(
    edges: LocalEdges, source: str, target: str, through: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        edges.effect(source, target) if through is None else edges.indirect(source, target, through=through)
    if through is None:
        with pytest.raises(ValueError, match=message):
            edges.gradient(source, target)


def test_what_lies_between_is_told(edges: LocalEdges) -> None:
    assert edges.between(UP, DOWN) == ("1.attn_out", "1.mlp_out")
    assert edges.between("embed", "1.attn_out") == ("0.attn_out", "0.mlp_out", "0.resid_post")
    assert edges.between("1.attn_out", "1.mlp_out") == ()
    assert edges.sites[0] == "embed"
    assert edges.sites[-1] == "metric"
    assert repr(edges).startswith("LocalEdges(3 examples; embed, 0.attn_out")
    assert repr(edges.effect(DOWN, "metric")).startswith("EdgeEffects(1.resid_post -> metric; example 3, ")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_prompts_of_several_lengths_are_as_one_by_one(edges: LocalEdges, batch_size: int) -> None:
    other = local_edges(small("gpt2"), SAES, RAGGED, batch_size=batch_size)
    for source, target in ((UP, DOWN), (UP, "1.attn_out"), (DOWN, "metric")):
        for ask in (LocalEdges.effect, LocalEdges.gradient):
            mine, theirs = ask(edges, source, target), ask(other, source, target)
            torch.testing.assert_close(mine.dense(), theirs.dense(), rtol=1e-6, atol=1e-9)
            lengths = torch.tensor(RAGGED.lengths)
            for axis in (1, 3):
                assert bool((mine.index[axis] < lengths[mine.index[0]]).all())
    mine, theirs = (one.indirect(UP, DOWN, through=BOTH) for one in (edges, other))
    torch.testing.assert_close(mine.dense(), theirs.dense(), rtol=1e-6, atol=1e-9)


def test_an_edge_of_a_circuit_is_the_mean_of_effects_summed_over_positions() -> None:
    model = small("gpt2")
    circuit = feature_circuit(model, SAES, RAGGED, method="gradient", node_threshold=0.01, edge_threshold=0.0)
    found = local_edges(model, SAES, RAGGED, nodes=0.01)
    strongest = circuit.edges(60)
    assert len(strongest) == 60
    for edge in strongest:
        source, target = str(edge.source), str(edge.target)
        effects = found.effect(*(key.split(".feature")[0].removesuffix(".error") for key in (source, target)))
        assert effects.sum(*POSITIONS).at(target=target, source=source) / 3 == pytest.approx(edge.weight, rel=1e-6)


def test_arguments_that_cannot_be_meant_are_refused() -> None:
    model = small("gpt2")
    with pytest.raises(ValueError, match=r"nodes=-1\.0; it is a size that effects must exceed"):
        local_edges(model, SAES, RAGGED, nodes=-1.0)
    with pytest.raises(ValueError, match="batch_size=0; it is at least 1"):
        local_edges(model, SAES, RAGGED, batch_size=0)
    with pytest.raises(ValueError, match="baseline='nothing'; it is one of patch, zero, mean"):
        local_edges(model, SAES, RAGGED, baseline="nothing")
    none = local_edges(model, SAES, pairs()[0], metric=3, nodes=1e6).effect(UP, DOWN)
    with pytest.raises(ValueError, match=r"no unit of 1\.resid_post here; there are 0"):
        none.at(example=0, target=f"{DOWN}.error@0", source=f"{UP}.error@0")
