"""Scores: parts of a model, what each adds to a number, and the ledger that proves it.

    remainder = target − Σ_node values[node]        computed in float64

`target` is the number explained, the model's own; the values are its parts, biases and constants included. What no part
carries stays visible as the remainder. Everything here is plain data on the CPU and opens without the model. Cost: one
pass over `values` for each sum. It knows nothing of how the parts were computed.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import store
from whence.results.checks import check_list, check_numbers
from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.runs import Run
from whence.results.sums import sum_and_magnitude

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import rich.table

__all__ = ["REST", "Keys", "Run", "Scores"]
REST = Node("rest")
_LISTS = ("axes", "target_labels", "tokens", "positions")


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """What each part of a model adds to a number; the rows sum to it, up to `remainder`.

    Args:
        keys: The part each row is.
        values: What it adds, in the unit of `target` (logits, as a rule); float32 or float64, on the CPU.
        target: The number explained.
        axes: Names of the axes of `values`: "node", "example", then "position" and "target" where there are several.
        target_labels: For each example, what each target is, such as " Austin" or "' Mary' − ' John'".
        tokens: For each example, its tokens as text; () where there is no single answer.
        positions: For each example, the absolute positions asked for; () where there is no single answer.
        provenance: Where the numbers come from (method, model, revision, dtype, versions ...), JSON-able.
        running: The rows are running sums: each holds everything up to there, the last one the whole number.

    Raises:
        ValueError: Shapes, lengths or axes that do not belong together.

    Example:
        >>> keys, values = Keys.of([Node("embed"), Node("mlp", 0)]), torch.tensor([[1.0], [2.0]])
        >>> Scores(keys, values, torch.tensor([3.5]), ("node", "example"), ((" Austin",),), (("The",),), ((0,),))
        Scores(2 nodes × 1 example: ' Austin' = +3.500, remainder +5.0e-01, 1.7e-01 of Σ|parts|)
    """

    keys: Keys
    values: Float[Tensor, "node example *rest"]
    target: Float[Tensor, "example *rest"]
    axes: tuple[str, ...]
    target_labels: tuple[tuple[str, ...], ...]
    tokens: tuple[tuple[str, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    running: bool = False

    def __post_init__(self) -> None:
        check_numbers(len(self.keys), self.values, self.target, self.axes)
        sizes = dict(zip(self.axes, self.values.shape, strict=True))
        check_list("target_labels", self.target_labels, sizes["example"], (sizes.get("target", 1),))
        check_list("tokens", self.tokens, sizes["example"], None)
        check_list("positions", self.positions, sizes["example"], (sizes.get("position", 1), 0))

    @property
    def parts(self) -> Float[Tensor, "node example *rest"]:
        """What each row adds: the values themselves, or the steps between running sums."""
        return self.values.diff(dim=0, prepend=torch.zeros_like(self.values[:1])) if self.running else self.values

    @property
    def remainder(self) -> Float64[Tensor, "example *rest"]:
        """What no part carries: target − Σ parts."""
        total = self.values[-1].double() if self.running else sum_and_magnitude(self.values, 0)[0]
        return self.target.double() - total

    @property
    def magnitude(self) -> Float64[Tensor, "example *rest"]:
        """Σ|parts|, the scale a remainder is judged by."""
        return sum_and_magnitude(self.parts, 0)[1]

    def mean(self) -> "Scores":
        """The mean over examples, as scores of one example. What the examples do not share is left out.

        A position that a shorter prompt does not have (-1 in `positions`) does not count as 0: it does not count.

        Example:
            >>> scores.mean().values.shape[1]  # doctest: +SKIP
            1
        """
        count, share = self.values.shape[1], self._share_of_examples()
        return replace(
            self,
            values=(self.values * share).sum(1, keepdim=True, dtype=torch.float64).to(self.values.dtype),
            target=(self.target * share).sum(0, keepdim=True, dtype=torch.float64).to(self.target.dtype),
            target_labels=(tuple(_shared(labels) for labels in zip(*self.target_labels, strict=True)),),
            tokens=(_same(self.tokens),),
            positions=(_same(self.positions),),
            provenance=self.provenance if count == 1 else self.provenance | {"mean_over_examples": count},
        )

    def _share_of_examples(self) -> Float64[Tensor, "example *rest"]:
        """What each example counts in a mean, at each position."""
        shape = self.target.shape[:2] if "position" in self.axes else self.target.shape[:1]
        present = torch.ones(shape, dtype=torch.float64)
        if "position" in self.axes and all(self.positions):
            present = (torch.tensor(self.positions) >= 0).double()
        share = present / present.sum(0).clamp_min(1)
        return share.reshape(*share.shape, *[1] * (self.target.ndim - share.ndim))

    def __getitem__(self, key: Node | str) -> Float[Tensor, "example *rest"]:
        """The values of one part.

        Raises:
            KeyError: no such row; ValueError: no node key.

        Example:
            >>> scores["2.attn.head:3"]  # doctest: +SKIP
            tensor([2.4372])
        """
        node = Node.parse(key) if isinstance(key, str) else key
        if node not in self.keys:
            raise KeyError(f"{node} is not among these {len(self.keys)} rows")
        return self.values[self.keys.index(node)]

    def top(self, k: int = 10, by: Literal["abs", "signed"] = "abs") -> "Scores":
        """The k strongest rows, strongest first, and one closing row `rest` that carries the others: it still adds up.

        Args:
            k: How many rows to keep.
            by: Strength of a row, averaged over all other axes: its size, or its signed value (most positive first).

        Raises:
            ValueError: Negative k, another `by`, or running sums, of which no few could add up.

        Example:
            >>> [str(key) for key in scores.top(2).keys]  # doctest: +SKIP
            ['5.attn.head:6', '3.mlp', 'rest']
        """
        if k < 0:
            raise ValueError(f"top({k}): the number of rows to keep is 0 or more.")
        if by not in ("abs", "signed"):
            raise ValueError(f"top(by={by!r}): strength is 'abs' or 'signed'.")
        if self.running:
            raise ValueError("these are running sums, which have no strongest rows; ask for accumulated=False.")
        sizes = self.values.abs() if by == "abs" else self.values
        strength = sizes.flatten(1).mean(1, dtype=torch.float64)
        closed = self.keys.index(REST) if REST in self.keys else None
        order = [row for row in strength.argsort(descending=True, stable=True).tolist() if row != closed]
        kept, others = order[:k], order[k:] + ([] if closed is None else [closed])
        nodes, values = [self.keys[row] for row in kept], self.values[kept]
        if others:
            rest = self.values[others].sum(0, keepdim=True, dtype=torch.float64).to(values.dtype)
            nodes, values = [*nodes, REST], torch.cat([values, rest])
        return replace(self, keys=Keys.of(nodes), values=values)

    def table(self, k: int | None = None) -> "rich.table.Table":
        """A table for the terminal: the strongest rows as bars, and the ledger below them.

        Args:
            k: Rows to show before `rest`; None shows 15, or everything when the rows were chosen by `top`.

        Example:
            >>> rich.print(scores.table(5))  # doctest: +SKIP
        """
        from whence.results.render import table  # rendering reads Scores, so it cannot be imported by it

        return table(self, k)

    def plot(self, path: str | Path | None = None, *, k: int | None = None) -> "matplotlib.figure.Figure":
        """A picture of the strongest rows, with the ledger below them.

        Args:
            path: Where to save it as well: .png, .svg or .pdf.
            k: Rows to show before `rest`, as in `table`.

        Raises:
            ImportError: No matplotlib: pip install 'whence[plot]'.
            ValueError: A suffix that is none of those.

        Example:
            >>> figure = scores.plot("parts.png")  # doctest: +SKIP
        """
        from whence.results.plot import plot

        return plot(self, path, k)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per node × example × position × target: key, its fields, where, and the value.

        Raises:
            ImportError: No pandas: pip install pandas.

        Example:
            >>> scores.to_pandas().groupby("layer")["value"].sum()  # doctest: +SKIP
        """
        from whence.results.frame import frame

        return frame(self)

    def to_json(self) -> dict[str, Any]:
        """Everything in JSON's types, keys printed and numbers as nested lists. Large tables belong in `save`.

        Example:
            >>> json.dumps(scores.top(5).to_json())  # doctest: +SKIP
        """
        numbers = {name: getattr(self, name).tolist() for name in ("values", "target", "remainder")}
        rest = {"running": self.running, "provenance": self.provenance}
        return {"keys": [str(key) for key in self.keys], **numbers, **self._lists(), **rest}

    def save(self, path: str | Path) -> Path:
        """The folder it was saved to: result.json and a safetensors file, bit-equal when loaded again.

        Args:
            path: Folder to make, or a result of whence to replace.

        Raises:
            FileFormatError: Something else is there; choose another path.

        Example:
            >>> scores.save("runs/austin")  # doctest: +SKIP
        """
        runs = [run.to_json() for run in self.keys.runs]
        meta = {"runs": runs, **self._lists(), "running": self.running, "provenance": self.provenance}
        return store.write(path, "scores", meta, {"values": self.values, "target": self.target})

    @staticmethod
    def load(path: str | Path) -> "Scores":
        """Scores that `save` wrote; needs neither the model nor transformers.

        Args:
            path: The folder.

        Raises:
            FileFormatError: Not scores, damaged, or of a newer version (upgrade whence).

        Example:
            >>> Scores.load("runs/austin").top(5)  # doctest: +SKIP
        """
        record = store.read(path, "scores")
        try:
            lists = {name: _tuples(record.meta[name]) for name in _LISTS}
            keys = Keys(Run.from_json(run) for run in record.meta["runs"])
            running = record.meta.get("running", False)  # absent from the first files
            return Scores(keys, **record.tensors, **lists, provenance=record.meta["provenance"], running=running)
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} does not describe scores: {error}.") from error

    def _lists(self) -> dict[str, Any]:
        return {name: _jsonable(getattr(self, name)) for name in _LISTS}

    def __repr__(self) -> str:
        from whence.results.render import line

        return line(self)

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def _repr_html_(self) -> str:
        from whence.results.html import html

        return html(self)


def _same(lists: tuple[tuple[Any, ...], ...]) -> tuple[Any, ...]:
    """What all examples have, or () when they differ."""
    return lists[0] if len(set(lists)) == 1 else ()


def _shared(labels: tuple[str, ...]) -> str:
    return labels[0] if len(set(labels)) == 1 else f"mean of {len(labels)} targets"


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _jsonable(value: Any) -> Any:
    return [_jsonable(entry) for entry in value] if isinstance(value, tuple) else value
