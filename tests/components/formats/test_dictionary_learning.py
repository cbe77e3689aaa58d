import pickle

import pytest
import torch

from components.formats.by_hand import FEATURES, WIDTH, X, above, random, same, top, write_json
from whence.components.loading import load_dictionary
from whence.errors import FileFormatError

LINEAR = {"encoder.weight": random(FEATURES, WIDTH), "decoder.weight": random(WIDTH, FEATURES)}
BIAS, CENTRE, THRESHOLD = random(FEATURES), random(WIDTH), random(FEATURES).abs()
SQUARE = {"W_enc": random(WIDTH, FEATURES), "W_dec": random(FEATURES, WIDTH), "b_enc": BIAS, "b_dec": CENTRE}
GATED = {"r_mag": random(FEATURES, seed=1), "gate_bias": random(FEATURES, seed=2), "mag_bias": random(FEATURES, seed=3)}


def write(folder, state, dict_class=None, **trainer):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ae.pt")  # noqa: TID251
    if dict_class is not None:
        trainer = {"dict_class": dict_class, "layer": 4, "submodule_name": "resid_post_layer_4"} | trainer
        write_json(folder / "config.json", {"trainer": trainer, "buffer": {}})
    return folder


def linear(x):
    return x @ LINEAR["encoder.weight"].T


def gated(x):
    magnitude = (linear(x) * GATED["r_mag"].exp() + GATED["mag_bias"]).relu()
    return magnitude * (linear(x) + GATED["gate_bias"] > 0)


LAYER = LINEAR | {"encoder.bias": BIAS, "b_dec": CENTRE, "k": torch.tensor(2), "threshold": torch.tensor(0.3)}
CASES = {
    "AutoEncoder": (LINEAR | {"encoder.bias": BIAS, "bias": CENTRE}, lambda x: (linear(x - CENTRE) + BIAS).relu()),
    "GatedAutoEncoder": (LINEAR | GATED | {"decoder_bias": CENTRE}, lambda x: gated(x - CENTRE)),
    "AutoEncoderTopK": (LAYER, lambda x: top((linear(x - CENTRE) + BIAS).relu(), 2)),
    "BatchTopKSAE": (LAYER, lambda x: above(linear(x - CENTRE) + BIAS, 0.3)),
    "JumpReluAutoEncoder": (
        SQUARE | {"threshold": THRESHOLD},
        lambda x: above((x @ SQUARE["W_enc"] + BIAS).relu(), THRESHOLD),
    ),
    "MatryoshkaBatchTopKSAE": (
        SQUARE | {"threshold": torch.tensor(0.2), "k": torch.tensor(2), "group_sizes": torch.tensor([2, 4])},
        lambda x: above((x - CENTRE) @ SQUARE["W_enc"] + BIAS, 0.2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_class_is_read_by_its_own_formula(tmp_path, name):
    state, features = CASES[name]
    found = load_dictionary(write(tmp_path, state, name))
    decoder = state["W_dec"] if "W_dec" in state else state["decoder.weight"].T
    assert (found.kind, found.layers, found.site) == ("sae", (4,), "resid_post")
    assert same(found[4].encode(X), features(X))
    assert same(found[4].decode(features(X)), features(X) @ decoder + CENTRE)


def test_without_a_config_the_path_says_where_it_belongs(tmp_path):
    write(tmp_path / "mlp_out_layer3" / "10_32768", CASES["AutoEncoder"][0])
    found = load_dictionary(tmp_path)
    assert (found.layers, found.site) == ((3,), "mlp_out")


def test_two_classes_with_the_same_tensors_are_not_guessed(tmp_path):
    with pytest.raises(FileFormatError, match="may be a top-k or a batch-top-k"):
        load_dictionary(write(tmp_path, LAYER), layer=1, site="resid_post")


def test_tensors_of_something_else_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="no autoencoder that is known"):
        load_dictionary(write(tmp_path, {"weight": CENTRE}), layer=1, site="resid_post")


class Malice:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    if form == "torch":
        write(tmp_path, {"weight": Malice()})
    else:
        (tmp_path / "ae.pt").write_bytes(pickle.dumps({"weight": Malice()}, protocol=2))
    with pytest.raises(FileFormatError, match="no state dict of tensors alone"):
        load_dictionary(tmp_path, layer=1, site="resid_post")
    assert not (tmp_path / "ran").exists()
