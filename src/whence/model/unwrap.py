"""The transformers model inside another library's wrapper, found without importing that library.

peft `PeftModel`                          `.get_base_model()`, its adapters in place
nnsight `LanguageModel`                   `._model` (a torch module), its `.tokenizer`
TransformerLens `TransformerBridge`       `.original_model`, its `.tokenizer`
"""

from typing import Any

from torch import nn


def unwrap(model: Any) -> tuple[Any, Any]:
    """The transformers model and, where the wrapper has one, its tokenizer.

    Raises:
        TypeError: neither a transformers model nor a wrapper that is known.
    """
    ancestors = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(model).__mro__}
    if "peft.PeftModel" in ancestors:
        return unwrap(model.get_base_model())
    if "nnsight.LanguageModel" in ancestors:
        return unwrap(model._model)[0], model.tokenizer
    if "transformer_lens.TransformerBridge" in ancestors:
        return unwrap(model.original_model)[0], model.tokenizer
    if isinstance(model, nn.Module) and "transformers.PreTrainedModel" in ancestors:
        return model, None
    raise TypeError(
        f"{type(model).__module__}.{type(model).__name__} is no transformers model, nor a wrapper whence knows (peft, "
        "nnsight LanguageModel, TransformerLens TransformerBridge); pass the transformers model itself"
    )
