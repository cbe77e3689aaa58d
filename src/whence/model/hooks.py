"""The only place that registers hooks on a model. Every hook is matched by module and removed, also on errors.

Cost: one Python call per hooked module and forward pass. Knows nothing of what the hooks are for.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

After = Callable[[tuple[Any, ...], dict[str, Any], Any], Any]
Before = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]

_paused: ContextVar[bool] = ContextVar("whence_hooks_paused", default=False)


@contextmanager
def hooks_paused() -> Generator[None]:
    """Call modules without being heard: for asking one module a question while the model is being recorded."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


@contextmanager
def hooked(
    after: Iterable[tuple[nn.Module, After]] = (), before: Iterable[tuple[nn.Module, Before]] = ()
) -> Generator[None]:
    """Call functions around modules while inside.

    Args:
        after: (module, function of (args, kwargs, output)); a return value other than None replaces the output.
        before: (module, function of (args, kwargs)); a returned pair replaces both.
    """

    def wrap_after(function: After) -> Callable[..., Any]:
        return lambda _, args, kwargs, output: None if _paused.get() else function(args, kwargs, output)

    def wrap_before(function: Before) -> Callable[..., Any]:
        return lambda _, args, kwargs: None if _paused.get() else function(args, kwargs)

    with ExitStack() as stack:
        for module, function in after:
            stack.callback(module.register_forward_hook(wrap_after(function), with_kwargs=True).remove)
        for module, function in before:
            stack.callback(module.register_forward_pre_hook(wrap_before(function), with_kwargs=True).remove)
        yield


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states a module was called with, given by position or by name."""
    if args:
        return args[0]
    return kwargs["hidden_states"] if "hidden_states" in kwargs else next(iter(kwargs.values()))


def replace_first(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with other hidden states."""
    if args:
        return (value, *args[1:]), kwargs
    name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: value}


def main_output(output: Any) -> Tensor:
    """The hidden states a module returned, alone or first of a tuple."""
    return output[0] if isinstance(output, tuple) else output
