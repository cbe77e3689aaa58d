import json
from dataclasses import replace

import pytest
import torch

from whence.components.importance.given import Given, Ones
from whence.components.importance.network import Network
from whence.components.parameter_files import load_components, save_components
from whence.components.parameters import ParameterComponents, Part
from whence.errors import FileFormatError
from whence.results import store

Q, EMBED = "0.attn.q", "embed.matrix"
COUNTS = {Q: 5, EMBED: 3}
ROWS = torch.arange(2)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS = {Q: random(2, 3, 8, seed=8), EMBED: torch.tensor([[1, 2, 8], [0, 0, 3]])}
PARTS = {
    Q: Part(Q, random(8, 5), random(5, 4), torch.tensor([True, False, True, True, True])),
    EMBED: Part(EMBED, random(9, 3), random(3, 8)),
}
EACH = {
    "mlp": {
        f"{site}.0.{end}": random(n, 1, 1) if end == "W" else random(n, 1) for site, n in COUNTS.items() for end in "Wb"
    },
    "global_mlp": {"0.W": random(11, 8), "0.b": random(8)},
    "global_reverse_residual": {
        **{"group.0.input.0.W": random(3, 4), "group.0.input.0.b": random(4), "group.0.reader_norm": random(4)},
        **{"group.0.reader.0.W": random(4, 3), "group.0.reader.0.b": random(3), "group.0.transition_norm": random(4)},
        **{"group.0.transition.0.W": random(4, 4), "group.0.transition.0.b": random(4)},
        **{"group.1.input.0.W": random(8, 4), "group.1.input.0.b": random(4), "group.1.reader_norm": random(4)},
        **{"group.1.reader.0.W": random(4, 5), "group.1.reader.0.b": random(5)},
    },
}
SETTINGS = {"global_reverse_residual": {"groups": [[EMBED], [Q]], "heads": None, "rope_base": None}}


def network(kind):
    reads = {site: part.V for site, part in PARTS.items() if kind == "mlp" or site == EMBED}
    return Network(kind, COUNTS, EACH[kind], "swish_hard", reads, SETTINGS.get(kind, {}))


def components(importance):
    return ParameterComponents(PARTS, importance, "a run", "step 7", {"lr": 0.1})


def of_kind(kind):
    if kind == "ones":
        return components(Ones(COUNTS))
    given = {site: random(2, 3, n).abs().clamp(max=1) for site, n in COUNTS.items()}
    return components(Given(given) if kind == "given" else network(kind))


@pytest.mark.parametrize("kind", [*EACH, "given", "ones"])
def test_what_is_saved_is_loaded_to_the_bit(tmp_path, kind):
    one = of_kind(kind)
    save_components(tmp_path / "parts", one)
    again = load_components(tmp_path / "parts")
    assert again.describe() == one.describe()
    for site in COUNTS:
        assert torch.equal(again.importances(INPUTS, ROWS)[site], one.importances(INPUTS, ROWS)[site])
        assert torch.equal(again.parts[site].V, PARTS[site].V)
        assert torch.equal(again.parts[site].U, PARTS[site].U)
    assert again.parts[Q].ids.tolist() == [0, 2, 3, 4]
    assert again.parts[EMBED].alive is None
    assert (again.source, again.revision, again.about) == ("a run", "step 7", {"lr": 0.1})


def test_half_precision_halves_the_file_and_is_widened_again(tmp_path):
    whole, half = (
        save_components(tmp_path / str(dtype), components(Ones(COUNTS)), dtype=dtype) for dtype in (None, torch.float16)
    )
    again = load_components(half).parts[Q]
    assert again.V.dtype == torch.float32
    assert torch.equal(again.V, PARTS[Q].V.half().float())
    stored = [sum(one.nbytes for one in store.read(path).tensors.values()) for path in (whole, half)]
    assert 2 * stored[1] - stored[0] == 5  # the alive mask stays
    assert again.ids.tolist() == [0, 2, 3, 4]


def test_a_function_of_ones_own_cannot_be_saved(tmp_path):
    def mine(inputs, rows):
        return {}

    with pytest.raises(TypeError, match=r"cannot hold function mine\. Evaluate it .* or save V and U alone with Ones"):
        save_components(tmp_path / "parts", components(mine))
    assert not (tmp_path / "parts").exists()


def test_the_source_of_what_does_not_say_it_is_the_reference(tmp_path):
    save_components(tmp_path / "parts", replace(components(Ones(COUNTS)), source=None))
    assert load_components(tmp_path / "parts").source == str(tmp_path / "parts")


def test_a_network_that_does_not_fit_is_found_when_loaded(tmp_path):
    wrong = replace(network("global_mlp"), tensors=EACH["global_mlp"] | {"0.W": random(10, 8)})
    save_components(tmp_path / "parts", components(wrong))
    with pytest.raises(FileFormatError, match="parts: the importance network does not fit the components"):
        load_components(tmp_path / "parts")


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.pop("parts"),
        lambda meta: meta["parts"][0].update(site="0.attn.k"),
        lambda meta: meta["importance"].update(kind="mpl"),
        lambda meta: meta["importance"].update(sigmoid="soft"),
        lambda meta: meta["importance"].pop("counts"),
        lambda meta: meta.update(about=None, importance=3),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path, change):
    record = store.read(save_components(tmp_path / "parts", components(network("mlp"))))
    meta = json.loads(json.dumps(record.meta))
    change(meta)
    store.write(tmp_path / "parts", "parameter_components", meta, record.tensors)
    with pytest.raises(FileFormatError, match=r"does not describe parameter components: .* Save them again"):
        load_components(tmp_path / "parts")


def test_other_folders_are_refused_with_what_is_looked_for(tmp_path):
    with pytest.raises(FileFormatError, match=r"holds no parameter components\. Give a folder that save_components"):
        load_components(tmp_path)
    store.write(tmp_path / "scores", "scores", {}, {"a": torch.zeros(1)})
    with pytest.raises(FileFormatError, match="kind 'scores', and 'parameter_components' is wanted"):
        load_components(tmp_path / "scores")
    with pytest.raises(FileFormatError, match="there is no folder"):
        load_components(tmp_path / "nothing")
