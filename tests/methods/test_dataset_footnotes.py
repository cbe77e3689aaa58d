from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dataset_runs import merged, planned
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_render import ranking_table

NOTE = "* belongs to no sum: a local derivative, or weighted sources"


@pytest.mark.parametrize(
    ("weighting", "key", "starred"),
    [
        ("target", "0.glu.up:0", False),
        ("target", "0.attn.o:0", True),  # by queries and keys
        ("source", "0.glu.up:0", True),  # whose sources count by their importance
    ],
)
def test_what_belongs_to_no_sum_is_marked_and_the_mark_explained(
    tmp_path: Path, weighting: str, key: str, starred: bool
) -> None:
    ranking = DatasetAttributions(merged(planned(tmp_path, batches=2, weighting=weighting))).top_sources(key, 50)
    console = Console(width=200, record=True, file=StringIO())
    console.print(ranking_table(ranking))
    text = " ".join(console.export_text().split())
    assert (NOTE in text) == starred
    assert (" * " in text) == starred
