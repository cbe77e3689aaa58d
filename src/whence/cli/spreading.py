"""Options that several commands share, declared once: the fields of a dataclass, which a command is given whole."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


def spread(asked: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every field of a dataclass as an option, in front of its own.

    The command takes an object of the class as its first argument; the fields are annotated as typer's options are.

    Args:
        asked: The dataclass.

    Example:
        >>> @dataclass
        ... class Asked:
        ...     loud: Annotated[bool, typer.Option(help="Say it loudly.")] = False
        >>> @app.command()
        ... @spread(Asked)
        ... def greet(asked: Asked, json: Json = False) -> None: ...
    """
    fields = inspect.signature(asked).parameters

    def spreading(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]

        @wraps(command)
        def spread_out(**given: Any) -> None:
            command(asked(**{name: given.pop(name) for name in fields}), **given)

        every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*fields.values(), *own)]
        spread_out.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        spread_out.__annotations__ = {one.name: one.annotation for one in every}
        return spread_out

    return spreading
