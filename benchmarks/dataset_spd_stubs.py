"""What spd's packages import and its harvester does not need, stood in for, so that it runs without its whole project.

Replaced are its base classes for runs in the cloud, its logger, its distributed utilities and the initializers of
packages; the component model, the target model, the topology, the harvester and the storage are the peer's own.
"""

import logging
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

PACKAGES = ("dataset_attributions", "pretrain", "utils")


def install(checkout: Path, dtype: torch.dtype) -> None:
    """Make `import spd...` give the checkout's modules.

    Args:
        checkout: the peer's source.
        dtype: what its forward passes are computed in: bfloat16 is its own choice.
    """
    from typing_extensions import override

    if not hasattr(typing, "override"):  # older than the Python that the peer asks for
        typing.override = override  # type: ignore[attr-defined]
    sys.path.insert(0, str(checkout))
    for name in PACKAGES:
        package = ModuleType(f"spd.{name}")
        package.__path__ = [str(checkout / "spd" / name.replace(".", "/"))]
        sys.modules[package.__name__] = package

    def autocast(enabled: bool = True) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled and dtype == torch.bfloat16)

    _stand_in("spd.settings", REPO_ROOT=checkout, SPD_OUT_DIR=checkout)
    _stand_in("spd.log", logger=logging.getLogger("spd"))
    _stand_in("spd.interfaces", LoadableModule=nn.Module, RunInfo=_RunInfo)
    _stand_in("spd.utils.general_utils", bf16_autocast=autocast, resolve_class=_absent)
    _stand_in("spd.utils.distributed_utils", log0=_absent)


class _RunInfo:
    """A base that takes a parameter, as the peer's own does."""

    def __class_getitem__(cls, _: object) -> type["_RunInfo"]:
        return cls


def _stand_in(name: str, **values: Any) -> None:
    module = ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module


def _absent(*_: Any, **__: Any) -> Callable[..., Any]:
    raise NotImplementedError("not part of what is measured")
