"""What was typed after --ablate, --set, --steer and --patch, as interventions."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from whence.interventions.kinds import Intervention


def changes(
    ablated: list[str] | None, values: list[str] | None, steered: list[str] | None, patched: list[str] | None
) -> "list[Intervention]":
    """The interventions that were typed: those that ablate, then those that set, steer and patch.

    Raises:
        typer.BadParameter: text of another form, or none at all.
        ValueError: a key that names no node.
    """
    from whence.interventions import kinds

    pairs = [_pair(text, "--set", "KEY=VALUE") for text in values or ()]
    made = [kinds.ablate(key) for key in ablated or ()]
    made += [kinds.set_value(key, _number(value, "--set")) for key, value in pairs]
    made += [_steered(*_pair(text, "--steer", "KEY=+X or KEY=*X")) for text in steered or ()]
    made += [kinds.patch(*_pair(text, "--patch", "KEY=PROMPT")) for text in patched or ()]
    if not made:
        raise typer.BadParameter("there is nothing to change; give --ablate, --set, --steer or --patch")
    return made


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise typer.BadParameter(f"'{text}' is no {form}", param_hint=option)
    return key, value


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no number", param_hint=option) from None


def _steered(key: str, value: str) -> "Intervention":
    from whence.interventions.kinds import steer

    if value[0] not in "+-*":
        raise typer.BadParameter(f"'{value}' is neither +X (add) nor *X (multiply)", param_hint="--steer")
    number = _number(value.removeprefix("*"), "--steer")
    return steer(key, scale=number) if value[0] == "*" else steer(key, add=number)
