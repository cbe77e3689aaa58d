"""Whether the parts of a header of dataset attributions belong together; each failed check is a `ValueError`.

Cost: one look at the ids. It knows no blocks.
"""

import re

import torch

from whence.results.dataset_axes import Axis, Header

_SITE = re.compile(r"[\w.:]+", re.ASCII)  # part of a file's name


def check_header(header: Header) -> None:
    """Refuse a header that says what cannot be.

    Raises:
        ValueError: Names the site, the pair or the windows.
    """
    check_names(header)
    for axis in (*header.targets.values(), *header.sources.values()):
        _check_axis(axis)
    for pair in header.pairs:
        if pair[0] not in header.targets or pair[1] not in header.sources:
            raise ValueError(f"the pair {pair[1]} -> {pair[0]} has no axis for one of its sites.")
        if not header.of(pair):
            raise ValueError(f"the pair {pair[1]} -> {pair[0]} has no statistics.")
    if list(header.windows) != sorted(set(header.windows)):
        raise ValueError(f"the windows {header.windows} are not ascending.")


def _check_axis(axis: Axis) -> None:
    ids = axis.ids
    if ids.dtype != torch.int64 or ids.ndim != 1 or not bool((ids[1:] > ids[:-1]).all()):
        raise ValueError(f"the ids of {axis.site} must be int64, ascending, one a line; they are {ids}.")
    for name, number in axis.quantities.items():
        if number.shape != ids.shape:
            raise ValueError(f"{name} of {axis.site} has shape {tuple(number.shape)} for {len(ids)} lines.")


def check_names(header: Header) -> None:
    """Refuse sites that could not be a file's name.

    Raises:
        ValueError: Names the site.
    """
    for site in (*header.targets, *header.sources):
        if not _SITE.fullmatch(site):
            raise ValueError(f"{site!r} is not the name of a site: letters, digits, '.', ':' and '_' make one.")
