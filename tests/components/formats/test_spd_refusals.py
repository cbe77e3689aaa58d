"""Component models of spd that are not read, and what is said then."""

import pickle

import pytest

from components.formats.spd_by_hand import (
    GROUPS,
    HEAD,
    REVERSE,
    UP,
    G,
    dashed,
    random,
    run,
    settings,
    with_identity,
    write,
)
from whence.components.parameter_files import load_components
from whence.errors import FileFormatError


def drop(name):
    return lambda state: state.pop(name)


def renamed(old, new):
    def change(state):
        for name in [name for name in state if old in name]:
            state[name.replace(old, new)] = state.pop(name)

    return change


V_UP = f"_components.{dashed(UP)}.V"


@pytest.mark.parametrize(
    ("kind", "change", "more", "sentence"),
    [
        ("mlp", None, {"module_info": None}, r"final_config\.yaml does not describe a component model"),
        ("mlp", None, {"ci_config": {}}, "does not describe a component model: KeyError.'fn_type'"),
        ("mlp", None, {"ci_config": {"fn_type": "wide"}}, "importance networks of type 'wide'; known are mlp, vector"),
        ("mlp", None, {"sigmoid_type": "soft"}, "a sigmoid_type 'soft'; known are leaky_hard"),
        ("mlp", None, {"module_info": [{"module_pattern": HEAD, "C": 2}]}, "decomposes .*wte, unlike .* says"),
        ("mlp", None, {"module_info": []}, "does not describe|decomposes"),
        ("mlp", lambda s: s.update({V_UP: random(6, 3)}), {}, r"mlp\.c_fc has V \(6, 3\) .* settings say 4 components"),
        ("mlp", lambda s: s.update({V_UP: random(6)}), {}, r"mlp\.c_fc has V \(6,\)"),
        ("mlp", drop(V_UP), {}, "no tensor '_components.transformer-h-0-mlp-c_fc.V', which its settings call for"),
        ("mlp", drop(f"ci_fn._ci_fns.{dashed(UP)}.layers.0.W"), {}, "no tensor .*layers.0.W', .* call for .mlp."),
        ("global_shared_mlp", lambda s: s.update({f"{G}layers.0.W": random(3, 7)}), {}, "network does not fit"),
        ("global_shared_mlp", with_identity, {}, "decomposes 1 identity modules .* cannot be left out"),
        ("global_shared_transformer", None, {"ci_config": {"fn_type": "global_shared_transformer"}}, "lacks 'simple_t"),
        ("global_reverse_residual", None, {"ci_config": {"fn_type": "global_reverse_residual"}}, "lacks 'block_groups"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(tmp_path, kind, change, more, sentence):
    with pytest.raises(FileFormatError, match=sentence):
        load_components(run(tmp_path, kind, change, **more))


def test_groups_that_leave_a_module_out_are_refused(tmp_path):
    network = {"fn_type": "global_reverse_residual", **REVERSE, "block_groups": GROUPS[:1]}
    with pytest.raises(FileFormatError, match="block_groups do not hold every decomposed module once"):
        load_components(run(tmp_path, "global_reverse_residual", ci_config=network))


def test_a_module_without_a_canonical_name_is_named(tmp_path):
    info = [{"module_pattern": "*", "C": 4}]
    state = {"target_model.mixer.weight": random(2, 2), "_components.mixer.V": random(2, 4)}
    with pytest.raises(FileFormatError, match="decomposes mixer, which whence has no name for"):
        load_components(write(tmp_path, state, settings("mlp", module_info=info)))


def test_missing_and_foreign_files_get_a_sentence(tmp_path):
    folder = run(tmp_path / "run", "mlp")
    (folder / "final_config.yaml").rename(folder / "other.yaml")
    with pytest.raises(FileFormatError, match=r"final_config\.yaml is missing\. Download the run's settings"):
        load_components(folder / "model_1000.pth")
    for text, sentence in (("a: [", "is no YAML file"), ("- 1", "holds no settings by name")):
        (folder / "final_config.yaml").write_text(text)
        with pytest.raises(FileFormatError, match=sentence):
            load_components(folder)
    (folder / "model_1000.pth").unlink()
    with pytest.raises(FileFormatError, match=r"has settings and no checkpoint model_<step>\.pth"):
        load_components(folder)


def test_a_checkpoint_that_would_run_something_is_not_opened(tmp_path):
    class Odd:
        def __reduce__(self):
            return (print, ("opened",))

    folder = write(tmp_path, {"_components.lm_head.V": Odd()}, settings("mlp"))
    with pytest.raises(FileFormatError, match=r"asks for \w+\.print, which is no plain data"):
        load_components(folder)
    (folder / "model_1000.pth").write_bytes(pickle.dumps({}))
    with pytest.raises(FileFormatError, match="not a zip file as torch saves them"):
        load_components(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 5000 + "]" * 5000, "nested too deep for settings"),
        ("ci_config: {fn_type: mlp}\nmodule_info: [{module_pattern: a, C: .inf}]", "OverflowError.* missing or odd"),
    ],
)
def test_settings_that_no_run_has_get_a_sentence(tmp_path, text, sentence):
    folder = run(tmp_path, "mlp")
    (folder / "final_config.yaml").write_text(text)
    with pytest.raises(FileFormatError, match=sentence):
        load_components(folder)


@pytest.mark.parametrize("reference", ["", " "])
def test_the_name_of_nothing_is_no_folder(reference):
    with pytest.raises(FileFormatError, match="the name of a folder is empty"):
        load_components(reference)
