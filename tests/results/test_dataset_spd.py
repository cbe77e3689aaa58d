from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from whence.errors import FileFormatError
from whence.results.dataset_axes import METRICS, STREAM
from whence.results.dataset_spd import import_spd, read_spd
from whence.results.dataset_spd_names import sites
from whence.results.dataset_store import open_store

TOKENS, VOCAB, WIDTH = 123_456, 11, 4
UNITS = {"0.attn.q": 3, "0.attn.o": 5, "1.mlp.down": 2}


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _save(path: Path, content: Any) -> Path:
    torch.save(content, path)  # noqa: TID251  # the files that the reader is for
    return path


def _nested() -> dict[str, Any]:
    rows = {"0.attn.q": 3, "0.attn.o": 5, "output": WIDTH}
    sources = {"0.attn.q": ["embed"], "0.attn.o": ["0.attn.q"], "output": ["1.mlp.down", "embed", "0.attn.o"]}
    columns = UNITS | {"embed": VOCAB}
    means = {
        metric: {t: {s: _random(rows[t], columns[s]) + i for s in of} for t, of in sources.items()}
        for i, metric in enumerate(METRICS)
    }
    counts = {"vocab_size": VOCAB, "ci_threshold": 0.5, "n_batches_processed": 12, "n_tokens_processed": TOKENS}
    return means | counts


def _flat(names: dict[str, str]) -> dict[str, Any]:
    keys = [f"{names[site]}:{unit}" for site, units in UNITS.items() for unit in range(units)]
    inner, outer = _random(VOCAB + 10, 10), _random(VOCAB + 10, WIDTH)
    inner[:, :3] *= (torch.arange(VOCAB + 10) < VOCAB).float()[:, None]  # 0.attn.q reads tokens only
    return {
        **{"component_layer_keys": keys, "vocab_size": VOCAB, "d_model": WIDTH, "ci_threshold": 0.0},
        **{"source_to_component": inner, "source_to_out_residual": outer},
        **{"n_batches_processed": 12, "n_tokens_processed": TOKENS},
    }


def _sums() -> dict[str, Any]:
    return {
        "regular_attr": {"0.attn.o": {"0.attn.q": _random(5, 3)}},
        "regular_attr_abs": {"0.attn.o": {"0.attn.q": _random(5, 3) + 1}},
        "embed_attr": {"0.attn.q": _random(3, VOCAB)},
        "embed_attr_abs": {"0.attn.q": _random(3, VOCAB) + 1},
        "unembed_attr": {"0.attn.o": _random(WIDTH, 5)},
        "embed_unembed_attr": _random(WIDTH, VOCAB),
        "w_unembed": _random(VOCAB, WIDTH).T,
        "ci_sum": {site: _random(units).abs() for site, units in UNITS.items()},
        "component_act_sq_sum": {site: _random(units).square() for site, units in UNITS.items()},
        "logit_sq_sum": _random(VOCAB).square(),
        "embed_token_count": torch.arange(VOCAB),
        "ci_threshold": 0.0,
        "n_tokens_processed": TOKENS,
    }


def test_nested_means_come_back_when_divided_by_the_tokens(tmp_path: Path) -> None:
    given = _nested()

    opened = open_store(import_spd(_save(tmp_path / "a.pt", given), tmp_path / "run"))

    opened.verify()
    header = opened.header
    assert (header.tokens, header.windows, header.statistics) == (TOKENS, (), METRICS)
    assert list(header.sources) == ["embed", "0.attn.q", "0.attn.o", "1.mlp.down"]
    assert list(header.targets) == ["0.attn.q", "0.attn.o", STREAM]
    assert set(header.pairs.values()) == {False}
    assert header.targets[STREAM].size == WIDTH
    assert header.settings["layout"] == "nested"
    assert "not of tokens" in header.provenance["coordinates"]
    for metric in METRICS:
        for target, of in given[metric].items():
            for source, mean in of.items():
                found = opened.block(STREAM if target == "output" else target, source, metric)
                assert found.dtype == torch.float32
                torch.testing.assert_close(found.double() / TOKENS, mean.double(), rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    "names",
    [
        {"0.attn.q": "h.0.attn.q_proj", "0.attn.o": "h.0.attn.o_proj", "1.mlp.down": "h.1.mlp.down_proj"},
        {site: site for site in UNITS},
    ],
)
def test_a_flat_file_is_cut_at_its_layers(tmp_path: Path, names: dict[str, str]) -> None:
    given = _flat(names)

    opened = open_store(import_spd(_save(tmp_path / "a.pt", given), tmp_path / "run"))

    opened.verify()
    header = opened.header
    assert header.statistics == ("attr",)
    assert not opened.has("0.attn.q", "1.mlp.down")
    assert {t for t, s in header.pairs if s == "0.attn.o"} == {"0.attn.o", "1.mlp.down", STREAM}
    starts = {"0.attn.q": 0, "0.attn.o": 3, "1.mlp.down": 8}
    for target, source in header.pairs:
        row = 0 if source == "embed" else VOCAB + starts[source]
        rows = given["source_to_out_residual" if target == STREAM else "source_to_component"]
        for t in range(len(header.targets[target].ids)):
            for s in range(len(header.sources[source].ids)):
                mean = rows[row + s, t if target == STREAM else starts[target] + t]
                found = opened.block(target, source, "attr")[t, s].double() / TOKENS
                torch.testing.assert_close(found, mean.double(), rtol=1e-7, atol=0)


def test_raw_sums_are_kept_with_their_counts(tmp_path: Path) -> None:
    given = _sums()

    opened = open_store(import_spd(_save(tmp_path / "a.pt", given), tmp_path / "run"))

    opened.verify()
    header = opened.header
    assert header.statistics == ("attr", "attr_abs")
    assert header.of((STREAM, "embed")) == header.of((STREAM, "0.attn.o")) == ("attr",)
    assert torch.equal(
        opened.block("0.attn.o", "0.attn.q", "attr_abs"), given["regular_attr_abs"]["0.attn.o"]["0.attn.q"]
    )
    assert torch.equal(opened.block(STREAM, "embed", "attr"), given["embed_unembed_attr"])
    assert torch.equal(opened.block(STREAM, "0.attn.o", "attr"), given["unembed_attr"]["0.attn.o"])
    assert torch.equal(opened.block("0.attn.q", "embed", "attr"), given["embed_attr"]["0.attn.q"])
    assert torch.equal(header.sources["0.attn.q"].quantities["importance"], given["ci_sum"]["0.attn.q"].double())
    assert torch.equal(
        header.targets["0.attn.o"].quantities["square"], given["component_act_sq_sum"]["0.attn.o"].double()
    )
    assert torch.equal(header.sources["embed"].quantities["importance"], torch.arange(VOCAB).double())
    assert torch.equal(opened.extra("unembedding"), given["w_unembed"].T)


def test_concrete_and_canonical_names_are_ours() -> None:
    assert sites(["lm_head", "h.0.mlp.c_fc", "wte", "h.0.mlp.down_proj", "h.0.attn.o_proj"]) == {
        "wte": "embed",
        "h.0.attn.o_proj": "0.attn.o",
        "h.0.mlp.c_fc": "0.mlp.up",
        "h.0.mlp.down_proj": "0.mlp.down",
        "lm_head": STREAM,
    }
    assert sites(["h.2.mlp.down_proj", "h.2.mlp.up_proj", "h.2.mlp.gate_proj"]) == {
        "h.2.mlp.gate_proj": "2.glu.gate",
        "h.2.mlp.up_proj": "2.glu.up",
        "h.2.mlp.down_proj": "2.glu.down",
    }
    assert list(
        sites(["transformer.h.10.attn.c_attn", "transformer.h.9.mlp.c_proj", "h_torch.1.attn.c_proj"]).values()
    ) == [
        "1.attn_fused.o",
        "9.mlp.down",
        "10.attn_fused.qkv",
    ]
    with pytest.raises(FileFormatError, match=r"'h.0.attn.z_proj' is not the name of a site"):
        sites(["h.0.attn.z_proj"])
    with pytest.raises(FileFormatError, match="mean one site"):
        sites(["wte", "embed"])


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("called",)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda given: given.pop("attr_abs"), "none of the three layouts"),
        (lambda given: given.pop("n_tokens_processed"), "n_tokens_processed"),
        (
            lambda given: given["attr_abs"]["output"].pop("embed"),
            "embed -> output.stream has attr, mean_sq",
        ),
        (lambda given: given["attr"]["output"].update(embed=torch.zeros(5, VOCAB)), "has shape"),
        (lambda given: given["attr"]["output"].update(embed=torch.zeros(3)), "no file of spd's"),
        (lambda given: given["attr"].update({"7.attn.zz": {}}), "'7.attn.zz' is not the name of a site"),
        (lambda given: given.update(attr=3), "no file of spd's"),
        (lambda given: given.update(more=_Evil()), "asks for builtins.print|asks for __builtin__.print"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: Any, complaint: str) -> None:
    given = _nested()
    change(given)
    file = _save(tmp_path / "a.pt", given)

    with pytest.raises(FileFormatError, match=complaint):
        read_spd(file)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    flat = _flat({site: site for site in UNITS})
    flat["source_to_component"] = flat["source_to_component"][:-1]

    with pytest.raises(FileFormatError, match="for 10 units"):
        read_spd(_save(tmp_path / "a.pt", flat))
    with pytest.raises(FileFormatError, match="no fields by name"):
        read_spd(_save(tmp_path / "b.pt", torch.zeros(3)))
    with pytest.raises(FileFormatError, match="does not exist"):
        read_spd(tmp_path / "absent.pt")
