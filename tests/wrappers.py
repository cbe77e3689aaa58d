"""Stand-ins shaped like other libraries' wrappers around a transformers model."""

from typing import Any

from torch import nn


def wrapper(name: str, module: str, base: type = object, **attributes: Any) -> Any:
    """An object of a class of this name from a package that is not installed."""
    outer = type(name, (base,), {"__module__": module})()
    vars(outer).update(attributes)
    return outer


class GeneralizedComponent(nn.Module):
    """A bridge component as the real ones are: it wraps a module, stands in its place, and computes another way."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.add_module("_original_component", original)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model's own forward pass is wanted")


GeneralizedComponent.__module__ = "transformer_lens.model_bridge"


def nnsight_model(hf: nn.Module) -> Any:
    """What nnsight's `LanguageModel` looks like."""
    return wrapper("LanguageModel", "nnsight.modeling.language", _module=hf, tokenizer=None)


def bridge(hf: nn.Module, *components: str) -> Any:
    """What TransformerLens' `TransformerBridge` looks like; it stands in the places of modules with these names."""
    # Children before their parents, whose components then wrap components.
    for path in sorted((p for p, _ in hf.named_modules() if p.split(".")[-1] in components), key=len, reverse=True):
        parent, _, name = path.rpartition(".")
        module = hf.get_submodule(parent)
        setattr(module, name, GeneralizedComponent(module.get_submodule(name)))
    return wrapper("TransformerBridge", "transformer_lens.model_bridge", original_model=hf, tokenizer=None)
