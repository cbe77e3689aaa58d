import sys
from collections.abc import Callable
from dataclasses import replace

import pandas
import pytest
import torch

from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.scores import Scores


def test_long_form_has_one_row_per_number_in_the_order_of_the_tensor(make: Callable[..., Scores]) -> None:
    scores = make(examples=2, positions=3, targets=2)

    table = scores.to_pandas()

    expected = ["key", "layer", "name", "index", "end", "source", "example", "position", "target", "value"]
    assert list(table.columns) == expected
    assert torch.equal(torch.tensor(table["value"].to_numpy()), scores.values.reshape(-1))
    where = table.iloc[1 * 12 + 1 * 6 + 2 * 2 + 1]  # node 1, example 1, position 2, target 1
    assert (where["key"], where["example"], where["position"], where["target"]) == ("0.attn.head:0~0", 1, 5, " word1")
    assert where["value"] == scores.values[1, 1, 2, 1]


def test_the_fields_of_a_key_have_columns_of_their_own() -> None:
    keys = Keys.of([Node("moe.neuron", 2, (3, 17), "gate"), Node("attn.head", 1, 4, source=0), Node("rest")])
    values = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    table = Scores(keys, values, values.sum(0), ("node", "example"), ((" x",),), ((),), ((),)).to_pandas()

    assert table["layer"].tolist() == [2, 1, pandas.NA]
    assert table["index"].tolist()[:2] == ["3/17", "4"]
    assert table["end"].tolist()[0] == "gate"
    assert table["source"].tolist() == [pandas.NA, 0, pandas.NA]
    assert table[["index", "end"]].isna().to_numpy().tolist() == [[False, False], [False, True], [True, True]]
    assert table["position"].isna().all()
    assert table["value"].dtype == "float64"


def test_sums_by_layer_are_those_of_the_tensor(make: Callable[..., Scores]) -> None:
    scores = make()

    by_layer = scores.to_pandas().groupby("layer")["value"].sum()

    assert by_layer[0] == pytest.approx(scores.values[1:19].sum().item() + scores.values[37].item(), abs=1e-4)


def test_scores_without_rows_give_an_empty_table(make: Callable[..., Scores]) -> None:
    scores = make()

    assert len(replace(scores, keys=Keys([]), values=scores.values[:0]).to_pandas()) == 0


def test_without_pandas_the_message_is_the_pip_line(
    make: Callable[..., Scores], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ImportError, match="pip install pandas"):
        make().to_pandas()
