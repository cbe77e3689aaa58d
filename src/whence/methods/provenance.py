"""Where a result comes from, as plain data that goes into its file."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from whence.model.model import Model


def provenance(model: Model, method: str, **options: Any) -> dict[str, Any]:
    """Model, dtype, device, versions and the options of the job.

    Args:
        model: what was explained.
        method: the job's public name.
        options: what was asked and held constant, JSON-able.
    """
    return {
        "method": method,
        "model": model.name,
        "revision": model.revision,
        "family": model.hf.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": {name: _version(name) for name in ("whence", "torch", "transformers")},
        **options,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "not installed"
