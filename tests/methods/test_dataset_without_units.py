from pathlib import Path

import pytest
import torch

from dataset_runs import given, model, planned
from whence.components.parameters import ParameterComponents
from whence.engine.dataset.named import sorted_out
from whence.methods.dataset import merge_run
from whence.methods.dataset_shard import run_shard
from whence.results.dataset import DatasetAttributions


def parts_without(*sites: str) -> ParameterComponents:
    parts = given().parameters
    assert parts is not None
    return parts.kept({site: torch.zeros(parts.parts[site].count, dtype=torch.bool) for site in sites or parts.parts})


@pytest.mark.parametrize("sites", [("0.attn.q",), ("0.attn.v", "0.glu.up"), ()])
def test_matrices_whose_components_are_all_dead_are_told_as_one_rest(tmp_path: Path, sites: tuple[str, ...]) -> None:
    parts = parts_without(*sites)
    plan = planned(tmp_path, components=sorted_out(parts))
    run_shard(plan, model(), sorted_out(parts))
    found = DatasetAttributions.load(merge_run(plan.folder))
    dead = sites or tuple(parts.parts)
    assert not set(dead) & {*found.target_sites, *found.source_sites}
    assert {f"{site}.delta" for site in dead} <= set(found.source_sites)
    assert any("0.glu.down" in str(entry) for entry in found.top_sources("output:5", k=50).entries)
    assert found.layer_matrix().values.nansum() > 0
    with pytest.raises(KeyError, match=dead[0].replace(".", r"\.")):
        found.top_sources(f"{dead[0]}:0")
