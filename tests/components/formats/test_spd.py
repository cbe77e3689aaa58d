"""Component models that spd trained, against its formulas on the same numbers."""

import logging

import pytest
import torch
from torch.nn import functional

from components.formats.spd_by_hand import (
    EMBED,
    HEAD,
    INPUTS,
    NETWORKS,
    PATTERNS,
    QKV,
    SITES,
    SIZES,
    UP,
    G,
    checkpoint,
    dashed,
    layers,
    random,
    run,
    settings,
    with_identity,
    write,
)
from whence.components.parameter_files import load_components


# ------------------------------------------------------------ what spd computes, from its own names
def stack(state, prefix, x):
    n = 0
    while f"{prefix}{2 * n}.W" in state:
        x = (functional.gelu(x) if n else x) @ state[f"{prefix}{2 * n}.W"] + state[f"{prefix}{2 * n}.b"]
        n += 1
    return x if n else x @ state[f"{prefix}W"] + state[f"{prefix}b"]


def normed(x, gain=None):
    return functional.rms_norm(x, x.shape[-1:], gain)


def turned(x, speeds):
    angles = torch.arange(x.shape[1]).float()[:, None] * speeds
    turn = torch.polar(torch.ones_like(angles), angles)[None, :, None]
    first, second = x.chunk(2, -1)
    both = torch.complex(first, second) * turn
    return torch.cat((both.real, both.imag), -1)


def attended(state, prefix, x):
    q, k, v = ((x @ state[f"{prefix}{end}_proj.weight"].T).unflatten(-1, (2, 4)) for end in "qkv")
    q, k = (turned(one, state[f"{prefix}rope.inv_freq"]) for one in (q, k))
    weights = (torch.einsum("bqhe,bkhe->bhqk", q, k) / 2).softmax(-1)
    return torch.einsum("bhqk,bkhe->bqhe", weights, v).flatten(-2) @ state[f"{prefix}out_proj.weight"].T


def split(together, paths):
    return dict(zip(paths, together.split([SIZES[path][1] for path in paths], -1), strict=True))


def said(kind, state):
    V = {path: state[f"_components.{dashed(path)}.V"] for path in SIZES}
    paths, read = sorted(SIZES), {path: V[path][x] if path == EMBED else x for path, x in INPUTS.items()}
    if kind == "mlp":
        return {path: one_by_one(state, path, read[path] if path == EMBED else read[path] @ V[path]) for path in paths}
    if kind == "global_shared_mlp":
        return split(stack(state, f"{G}layers.", torch.cat([read[path] for path in paths], -1)), paths)
    if kind == "global_shared_transformer":
        x = stack(state, f"{G}_input_projector.", torch.cat([normed(read[path]) for path in paths], -1))
        x = x + attended(state, f"{G}_blocks.0.attn.", normed(x))
        x = x + stack(state, f"{G}_blocks.0.mlp.", normed(x))
        return split(stack(state, f"{G}_output_head.", x), paths)
    norm = {kind: state[f"{G}_{kind}_norms.un-embed.weight"] for kind in ("attn", "transition", "reader")}
    x = stack(state, f"{G}_inp_projectors.un-embed.", read[HEAD])
    x = x + attended(state, f"{G}_attn_transitions.un-embed.", normed(x, norm["attn"]))
    x = x + stack(state, f"{G}_transitions.un-embed.", normed(x, norm["transition"]))
    first = split(stack(state, f"{G}_readers.un-embed.", normed(x, norm["reader"])), [HEAD])
    rest = [EMBED, UP, QKV]  # by pattern; within one in the order of the settings' patterns
    x = x + stack(state, f"{G}_inp_projectors.rest.", torch.cat([read[path] for path in rest], -1))
    return first | split(stack(state, f"{G}_readers.rest.", normed(x, state[f"{G}_reader_norms.rest.weight"])), rest)


def one_by_one(state, path, a):
    prefix, columns = f"ci_fn._ci_fns.{dashed(path)}.layers.", []
    for c in range(a.shape[-1]):
        mine = {name: one[c] for name, one in state.items() if name.startswith(prefix)}
        columns.append(stack(mine, prefix, a[..., c : c + 1]))
    return torch.cat(columns, -1)


def importances(components):
    return components.importances({SITES[path]: x for path, x in INPUTS.items()}, torch.arange(2))


@pytest.mark.parametrize("kind", NETWORKS)
def test_components_and_importances_are_those_of_the_checkpoint(tmp_path, kind):
    state = checkpoint(kind)
    found = load_components(run(tmp_path, kind))
    assert list(found.parts) == ["embed.matrix", "0.attn_fused.qkv", "0.mlp.up", "output.matrix"]
    for path, site in SITES.items():
        assert torch.equal(found.parts[site].V, state[f"_components.{dashed(path)}.V"])
        assert torch.equal(found.parts[site].U, state[f"_components.{dashed(path)}.U"])
    got, wanted = importances(found), said(kind, state)
    for path, site in SITES.items():
        torch.testing.assert_close(got[site], wanted[path].sigmoid(), atol=1e-6, rtol=0)
    assert (found.source, found.revision, found.about["decomposed"]) == (str(tmp_path), "model_1000.pth", "gpt2")


@pytest.mark.parametrize("kind", ["vector_mlp", "shared_mlp"])
def test_networks_of_a_matrix_read_its_input(tmp_path, kind):
    state, paths = checkpoint("mlp"), [QKV, UP, HEAD]
    state = {name: one for name, one in state.items() if not name.startswith("ci_fn") and dashed(EMBED) not in name}
    for path in paths:
        prefix, (into, count, _) = f"ci_fn._ci_fns.{dashed(path)}.layers.", SIZES[path]
        each = kind == "vector_mlp"
        state |= layers(prefix, into, 4, 1, count=count) if each else layers(prefix, into, 4, count)
    info = [{"module_pattern": pattern, "C": count} for pattern, count in PATTERNS[:-1]]
    write(tmp_path, state, settings("mlp", module_info=info, ci_config={"mode": "layerwise", "fn_type": kind}))
    inputs = {SITES[path]: INPUTS[path] for path in paths}
    got = load_components(tmp_path).importances(inputs, torch.arange(2))
    for path in paths:
        prefix = f"ci_fn._ci_fns.{dashed(path)}.layers."
        if kind == "shared_mlp":
            wanted = stack(state, prefix, INPUTS[path])
        else:
            singles = [{n: one[c] for n, one in state.items() if prefix in n} for c in range(SIZES[path][1])]
            wanted = torch.cat([stack(one, prefix, INPUTS[path]) for one in singles], -1)
        torch.testing.assert_close(got[SITES[path]], wanted.sigmoid(), atol=1e-6, rtol=0)


def test_earlier_layouts_say_the_same(tmp_path):
    state = {name: one for name, one in checkpoint("mlp").items() if dashed(EMBED) not in name}
    old = {}
    for name, one in state.items():
        name = name.replace("ci_fn._ci_fns.", "_gates.").replace("target_model.", "patched_model.")
        for path in SIZES:
            name = name.replace(f"_components.{dashed(path)}.", f"patched_model.{path}.components.")
        old[name.replace(".weight", ".original.weight")] = one
    info = [{"module_pattern": pattern, "C": SIZES[pattern][1]} for pattern in (HEAD, QKV, UP)]
    inputs = {SITES[path]: INPUTS[path] for path in (HEAD, QKV, UP)}
    for path in (HEAD, QKV, UP):  # the earlier settings have one number of components for all
        for each, name in ((state, f"_components.{dashed(path)}"), (old, f"patched_model.{path}.components")):
            each[f"{name}.V"], each[f"{name}.U"] = random(6, 2, seed=len(path)), random(2, SIZES[path][2])
        for end in ("0.W", "0.b", "2.W", "2.b"):
            name = f"{dashed(path)}.layers.{end}"
            state[f"ci_fn._ci_fns.{name}"] = old[f"_gates.{name}"] = state[f"ci_fn._ci_fns.{name}"][:2]
    info = [one | {"C": 2} for one in info]
    new = load_components(write(tmp_path / "new", state, settings("mlp", module_info=info)))
    said = {"C": 2, "target_module_patterns": [HEAD, QKV, UP], "ci_fn_type": "mlp", "ci_fn_hidden_dims": [4]}
    found = load_components(write(tmp_path / "old", old, said | {"sigmoid_type": "normal"}))
    assert found.describe()["fingerprint"] == new.describe()["fingerprint"]
    for site, one in new.importances(inputs, torch.arange(2)).items():
        assert torch.equal(found.importances(inputs, torch.arange(2))[site], one)


def test_the_newest_checkpoint_is_taken_unless_one_is_named(tmp_path):
    for step in (900, 10000):
        write(tmp_path, checkpoint("mlp"), settings("mlp"), step)
    assert load_components(tmp_path).revision == "model_10000.pth"
    assert load_components(tmp_path / "model_900.pth").revision == "model_900.pth"


def test_an_earlier_file_with_one_network_for_all_is_told_by_its_switch(tmp_path):
    old = {key: value for key, value in settings("global_shared_mlp").items() if key != "ci_config"}
    found = load_components(write(tmp_path, checkpoint("global_shared_mlp"), old | {"use_global_ci": True}))
    assert found.importance.kind == "global_mlp"


def test_inserted_identities_are_left_out_of_networks_of_a_matrix(tmp_path, caplog):
    inserted = [{"module_pattern": UP, "C": 6}]
    with caplog.at_level(logging.WARNING):
        found = load_components(run(tmp_path, "mlp", with_identity, identity_module_info=inserted))
    assert list(found.parts) == list(SITES.values())
    assert "1 decomposed identity modules are left out" in caplog.text
