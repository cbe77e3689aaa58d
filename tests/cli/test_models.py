import json
from collections.abc import Callable
from dataclasses import asdict

from typer.testing import Result

import families
from whence.engine.granularity import available
from whence.model.architectures import ARCHITECTURES, support

Whence = Callable[..., Result]
UNITS = {
    "heads": "head",
    "neurons": "neuron",
    "experts": "expert",
    "channels": "channel",
    "source_tokens": "source_token",
}


def test_the_table_has_a_row_for_every_family(whence: Whence) -> None:
    result = whence("models")
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    assert result.exit_code == 0
    for family, entry in ARCHITECTURES.items():
        assert rows[family] == ["yes" if works else "no" for works in asdict(support(entry)).values()]
    assert f"{len(ARCHITECTURES)} families." in result.stdout


def test_json_says_the_same(whence: Whence) -> None:
    found = {row.pop("family"): row for row in json.loads(whence("models", "--json").stdout)}
    assert found == {family: asdict(support(entry)) for family, entry in ARCHITECTURES.items()}


def test_what_is_promised_is_what_a_model_of_the_family_offers() -> None:
    offered: dict[str, set[str]] = {}
    for name in (*families.FAMILIES, *families.MULTIMODAL):  # some families come in several shapes
        offered.setdefault(families.model_type(name), set()).update(available(families.loaded(name).layout))
    for family, entry in ARCHITECTURES.items():
        promised = {UNITS[name] for name, works in asdict(support(entry)).items() if works and name in UNITS}
        assert promised == offered[family] & set(UNITS.values()), family
