"""Whether the fields of `Scores` belong together; each failed check is a `ValueError` naming both shapes."""

from collections.abc import Sequence

import torch
from torch import Tensor

AXES = [("node", "example", *rest) for rest in [(), ("position",), ("target",), ("position", "target")]]


def check_numbers(rows: int, values: Tensor, target: Tensor, axes: tuple[str, ...]) -> None:
    """Check that values, target, number of keys and axes describe one table.

    Args:
        rows: How many keys there are.
        values: The parts.
        target: What they explain.
        axes: Names of the axes of `values`.

    Raises:
        ValueError: They do not; names both shapes.

    Example:
        >>> check_numbers(2, torch.zeros(2, 1), torch.zeros(1), ("node", "example"))
    """
    shape = tuple(values.shape)
    for name, tensor in (("values", values), ("target", target)):
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.device.type != "cpu" or tensor.requires_grad:
            raise ValueError(
                f"{name} are {tensor.dtype} on {tensor.device}, requires_grad={tensor.requires_grad}; scores are plain "
                f"float32 or float64 on the CPU. Pass {name}.detach().float().cpu()."
            )
    if axes not in AXES or len(axes) != len(shape):
        raise ValueError(f"axes {axes} do not name those of values, whose shape is {shape}; known are {AXES}.")
    if rows != shape[0]:
        raise ValueError(f"{rows} keys for values of shape {shape}; the first axis is one row a key.")
    if tuple(target.shape) != shape[1:]:
        raise ValueError(f"target has shape {tuple(target.shape)}, and values {shape}: it must be {shape[1:]}.")
    if shape[1] == 0:
        raise ValueError(f"values have shape {shape}: there is no example in them.")


def check_list(name: str, lists: Sequence[Sequence[object]], examples: int, lengths: tuple[int, ...] | None) -> None:
    """Check that a field has one list an example, each of an allowed length.

    Args:
        name: The field, for the message.
        lists: The field.
        examples: Length of the example axis.
        lengths: What each list's length may be; None for any.

    Raises:
        ValueError: They do not fit; names both lengths.

    Example:
        >>> check_list("positions", [(3,), (5,)], examples=2, lengths=(0, 1))
    """
    if len(lists) != examples:
        raise ValueError(f"{name} describe {len(lists)} examples, and values have {examples}.")
    for example, entries in enumerate(lists):
        if lengths is not None and len(entries) not in lengths:
            wanted = " or ".join(map(str, lengths))
            raise ValueError(f"{name}[{example}] has {len(entries)} entries, and the axes of values call for {wanted}.")
