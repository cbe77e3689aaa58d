"""whence: where did this output come from?

The public names, imported when first used: `import whence` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whence import demo as demo
    from whence.components.dictionaries import SAE, CrossLayerTranscoder, Transcoder
    from whence.components.loading import load_dictionary, save_dictionary
    from whence.errors import FileFormatError, LedgerError, UnsupportedModelError, WhenceError
    from whence.methods.direct import direct_logit_attribution
    from whence.methods.direct import direct_logit_attribution as dla
    from whence.methods.lens import LogitLens, logit_lens
    from whence.model.model import Model
    from whence.results.keys import Edge, LogitTarget, Node
    from whence.results.scores import Scores
    from whence.targets.attribution import AttributionTargets
    from whence.targets.concepts import concept_direction
    from whence.targets.custom import CustomTarget
    from whence.targets.specs import activation, kl_divergence, log_probability, logit_difference, metric, probability

_HOME = {
    "AttributionTargets": "targets.attribution",
    "CrossLayerTranscoder": "components.dictionaries",
    "CustomTarget": "targets.custom",
    "Edge": "results.keys",
    "FileFormatError": "errors",
    "LedgerError": "errors",
    "LogitLens": "methods.lens",
    "LogitTarget": "results.keys",
    "Model": "model.model",
    "Node": "results.keys",
    "SAE": "components.dictionaries",
    "Scores": "results.scores",
    "Transcoder": "components.dictionaries",
    "UnsupportedModelError": "errors",
    "WhenceError": "errors",
    "activation": "targets.specs",
    "concept_direction": "targets.concepts",
    "direct_logit_attribution": "methods.direct",
    "dla": "methods.direct",
    "kl_divergence": "targets.specs",
    "load_dictionary": "components.loading",
    "log_probability": "targets.specs",
    "logit_difference": "targets.specs",
    "logit_lens": "methods.lens",
    "metric": "targets.specs",
    "probability": "targets.specs",
    "save_dictionary": "components.loading",
}
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # a test keeps the three lists in step
    "SAE",
    "AttributionTargets",
    "CrossLayerTranscoder",
    "CustomTarget",
    "Edge",
    "FileFormatError",
    "LedgerError",
    "LogitLens",
    "LogitTarget",
    "Model",
    "Node",
    "Scores",
    "Transcoder",
    "UnsupportedModelError",
    "WhenceError",
    "activation",
    "concept_direction",
    "direct_logit_attribution",
    "dla",
    "kl_divergence",
    "load_dictionary",
    "log_probability",
    "logit_difference",
    "logit_lens",
    "metric",
    "probability",
    "save_dictionary",
]


def __getattr__(name: str) -> Any:
    if name == "demo":
        return import_module("whence.demo")
    if name not in _HOME:
        raise AttributeError(f"module 'whence' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    attribute = "direct_logit_attribution" if name == "dla" else name
    return getattr(import_module(f"whence.{_HOME[name]}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
