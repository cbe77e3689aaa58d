import pytest
import torch
from safetensors.torch import save_file

from components.formats.by_hand import FEATURES, WIDTH, X, random, same, top, write_json
from whence.components.loading import load_dictionary
from whence.errors import FileFormatError


def write(folder, config, **more):
    own = {"encoder.weight": random(FEATURES, WIDTH), "encoder.bias": random(FEATURES)}
    own |= {"W_dec": random(FEATURES, WIDTH), "b_dec": random(WIDTH)} | more
    write_json(folder / "cfg.json", {"expansion_factor": 2, "k": 2} | config)
    save_file(own, folder / "sae.safetensors")
    return own


def test_an_sae_reads_its_module_s_output_less_the_bias(tmp_path):
    own = write(tmp_path / "layers.5", {})
    found = load_dictionary(tmp_path)
    pre = (X - own["b_dec"]) @ own["encoder.weight"].T + own["encoder.bias"]
    assert (found.kind, found.layers, found.site) == ("sae", (5,), "resid_post")
    assert same(found[5].encode(X), top(pre.relu(), 2))


def test_a_transcoder_reads_its_module_s_input_as_it_is(tmp_path):
    own = write(tmp_path / "layers.5.mlp", {"transcode": True, "skip_connection": True}, W_skip=random(WIDTH, WIDTH))
    found = load_dictionary(tmp_path)
    pre = X @ own["encoder.weight"].T + own["encoder.bias"]
    assert (found.kind, found.reads, found.writes) == ("transcoder", "mlp_in", "mlp_out")
    assert same(found[5].encode(X), top(pre.relu(), 2))
    assert same(X @ found.skip(5).T, X @ own["W_skip"].mT)


def test_groupmax_keeps_one_of_each_group(tmp_path):
    own = write(tmp_path / "layers.5.mlp", {"transcode": True, "activation": "groupmax"})
    pre = (X @ own["encoder.weight"].T + own["encoder.bias"]).relu()
    expected = torch.zeros_like(pre)
    for row in range(len(pre)):
        for group in (range(3), range(3, 6)):
            best = max(group, key=lambda i: pre[row, i])
            expected[row, best] = pre[row, best]
    assert same(load_dictionary(tmp_path)[5].encode(X), expected)


@pytest.mark.parametrize(
    ("folder", "config", "message"),
    [
        ("layers.5.mlp", {"activation": "tanh"}, "activation 'tanh'"),
        ("layers.5.mlp", {"signed": True}, "signed=True"),
        ("layers.5.rotary", {}, "hook 'layers.5.rotary' is no place"),
        ("layers.5.self_attn", {"transcode": True}, "hook 'layers.5.self_attn.input' is no place"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, folder, config, message):
    write(tmp_path / folder, config)
    with pytest.raises(FileFormatError, match=message):
        load_dictionary(tmp_path)
