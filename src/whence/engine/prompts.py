"""What a graph and everything beside it are given, made definite: a prompt, a position, units, BOS positions."""

from collections.abc import Sequence
from typing import Any

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet, as_dictionary_set
from whence.model.batch import Batch
from whence.model.model import Model

NEURONS = 2048  # rows in a graph of neurons, all of which are active, if nobody says how many
GEMMA_CHAT = (2, 105, 2364, 107)  # circuit-tracer leaves out the four tokens that open a chat of this family


def one_prompt(model: Model, prompt: Any, position: int) -> tuple[Batch, int]:
    """A batch of one prompt, and the absolute position asked for.

    Raises:
        ValueError: several prompts, or a position outside this one.
    """
    if not isinstance(model, Model):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not check types
        raise TypeError(f"model is {type(model).__name__}; wrap it first: whence.Model(model, tokenizer)")
    batch = model.batch(prompt)
    if len(batch.ids) != 1:
        raise ValueError(f"{len(batch.ids)} prompts were given; a graph is of one, and attribution_graphs takes many")
    rows = batch.rows(position)
    if rows.shape[1] != 1:
        raise ValueError(f"position={position!r}; a graph explains one position")
    return batch, int(rows[0, 0])


def units_of(model: Model, dictionary: Any) -> DictionarySet | Neurons:
    """What stands for the MLPs, its rows handed out where the model computes.

    Raises:
        TypeError: no dictionary, or one whose features do not read the stream linearly.
    """
    if dictionary is None or isinstance(dictionary, Neurons):
        return dictionary or Neurons()
    found = as_dictionary_set(dictionary)
    if found.kind == "sae":
        raise TypeError(
            f"dictionary= holds SAEs of {found.writes}; an attribution graph needs features that stand for an MLP: "
            "transcoders, a cross-layer transcoder, or None for neurons"
        )
    return found.to(model.device)


def bos_positions(model: Model, batch: Batch, parity: str | None) -> tuple[int, ...]:
    """Positions where no dictionary is trusted: a special first token; for circuit-tracer, always the first."""
    first = batch.ids[0, : len(GEMMA_CHAT)].tolist()
    if parity is not None:
        return (0, 1, 2, 3) if tuple(first) == GEMMA_CHAT else (0,)
    special: Sequence[int] = getattr(model.tokenizer, "all_special_ids", None) or ()
    bos = getattr(model.hf.config.get_text_config(), "bos_token_id", None)
    return (0,) if first[0] in (*special, bos) else ()


def check_choice(order: str, max_nodes: Any) -> None:
    """Refuse an order or a number of nodes that cannot be meant.

    Raises:
        ValueError: with what can.
    """
    if order not in ("influence", "exact"):
        raise ValueError(f"order={order!r}; it is 'influence' or 'exact'")
    if max_nodes is None:
        return
    if isinstance(max_nodes, bool) or not isinstance(max_nodes, int) or max_nodes < 0:
        raise ValueError(f"max_nodes={max_nodes!r}; it is the number of features with rows of their own, or None")
