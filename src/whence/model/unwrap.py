"""The transformers model inside another library's wrapper, found without importing that library.

  peft `PeftModel`                          `.get_base_model()`, its adapters in place
  nnsight `LanguageModel`                   `._module` (`._model` before 0.4), its `.tokenizer`
  TransformerLens `TransformerBridge`       `.original_model`, its `.tokenizer`

A bridge puts components of its own, some with another forward pass, in the places of the model's modules. What is used
here is a second tree of the model's own modules around the same parameters; the bridge is left as it is.
"""

from copy import copy
from typing import Any

from torch import nn

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def unwrap(model: Any) -> tuple[Any, Any]:
    """The transformers model and, where the wrapper has one, its tokenizer.

    Raises:
        ValueError: a wrapper whose weights are not loaded yet.
        TypeError: neither a transformers model nor a wrapper that is known, or one whose prompt is learned.
    """
    ancestors = _ancestors(model)
    if "peft.PeftModel" in ancestors:
        if model.active_peft_config.is_prompt_learning:
            raise TypeError(
                f"the peft model learns a prompt ({model.active_peft_config.peft_type}), which its base model does not "
                "have: attributing the base model would explain another model's output"
            )
        return unwrap(model.get_base_model())
    if ancestors & {"nnsight.LanguageModel", "nnsight.TransformersModel"}:
        hf = unwrap(vars(model)["_module" if "_module" in vars(model) else "_model"])[0]
        if all(parameter.device.type == "meta" for parameter in hf.parameters()):
            raise ValueError(f"the nnsight {type(model).__name__} has not loaded its weights; pass dispatch=True to it")
        return hf, model.tokenizer
    if "transformer_lens.TransformerBridge" in ancestors:
        return _without_bridges(unwrap(model.original_model)[0], {}), model.tokenizer
    if isinstance(model, nn.Module) and "transformers.PreTrainedModel" in ancestors:
        return model, None
    raise TypeError(
        f"{type(model).__module__}.{type(model).__name__} is no transformers model, nor a wrapper whence knows (peft, "
        "nnsight LanguageModel, TransformerLens TransformerBridge); pass the transformers model itself"
    )


def _ancestors(model: Any) -> set[str]:
    """Names of a model's classes, each with the package that defines it."""
    return {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(model).__mro__}


def _without_bridges(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module with every bridge component below it replaced by what it wraps; parameters are shared, not copied."""
    inner = module
    while "transformer_lens.GeneralizedComponent" in _ancestors(inner):
        inner = inner._modules["_original_component"]  # pyright: ignore[reportAssignmentType]
        assert inner is not None
    if module not in done:
        children = {name: child and _without_bridges(child, done) for name, child in inner._modules.items()}
        unchanged = all(child is inner._modules[name] for name, child in children.items())
        done[module] = inner if unchanged else _with_children(inner, children)
    return done[module]


def _with_children(module: nn.Module, children: dict[str, nn.Module | None]) -> nn.Module:
    """A copy that shares everything with the module but its children and its hooks."""
    bare = copy(module)
    bare.__dict__.update({"_modules": children} | {name: type(vars(module)[name])() for name in HOOKS})
    return bare
