"""What a memory budget leaves for sweeps and for rows kept in memory.

budget = linear model + run | half of the rest: copies that come and go, what the allocator keeps
| a quarter: a chunk's sweep and its rows | a quarter: finished rows, the others on disk
"""

from dataclasses import dataclass

from whence.engine.expansion import CHUNK_BYTES, least_bytes
from whence.engine.linearize import Linearized
from whence.engine.memory import said
from whence.model.model import Model


@dataclass(frozen=True)
class Budget:
    """Bytes for one chunk, and for finished rows in memory (None: any number)."""

    chunk: int = CHUNK_BYTES
    rows: int | None = None


def budget_of(linear: Linearized, memory: int | None) -> Budget:
    """How a budget is spent on one linearized prompt.

    Raises:
        ValueError: not enough for a single row.
    """
    if memory is None:
        return Budget()
    static, least = linear.bytes(), 4 * least_bytes(linear)
    if memory < static + least:
        raise ValueError(
            f"memory={said(memory)} is too little: the linear model of this prompt takes {said(static)} and one row "
            f"another {said(least)}. Allow at least {said(static + least)}, or shorten the prompt."
        )
    quarter = (memory - static) // 4
    return Budget(min(CHUNK_BYTES, quarter), quarter)


def refuse_hopeless(model: Model, length: int, memory: int | None) -> None:
    """Refuse, before the model is run, a budget that its attention patterns alone would break.

    Raises:
        ValueError: with what the patterns take.
    """
    heads = sum(writer.heads or 1 for writer in model.layout.attention)
    patterns = heads * length**2 * model.accumulation.itemsize
    if memory is not None and patterns > memory:
        raise ValueError(
            f"memory={said(memory)} is too little: the attention patterns of {length} tokens alone take "
            f"{said(patterns)}. Allow more, or shorten the prompt."
        )
