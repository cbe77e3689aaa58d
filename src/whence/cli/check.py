"""`whence check`: does this model do what its family's entry claims, and what can be asked of it?"""

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.console import print_json, stdout
from whence.cli.loading import load
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Revision

if TYPE_CHECKING:
    from rich.table import Table

    from whence.model.model import Model
    from whence.model.selfcheck import Check


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Load a model, print its self-check and what works for it; exit code 2 if it is refused."""
    from whence.model.selfcheck import SelfCheckError

    try:
        found = load(model, revision, device, dtype)
    except SelfCheckError as error:
        _show(error.checks, {"model": model, "accepted": False}, json)
        raise
    _show(found.checks, {"model": model, "accepted": True, **_offered(found)}, json)


def _offered(model: "Model") -> dict[str, Any]:
    from whence.engine.granularity import available

    return {
        "family": str(model.hf.config.model_type),
        "listed": model.listed,
        "by": list(available(model.layout)),
        "graphs": model.architecture.frozen,
    }


def _show(checks: "list[Check]", about: dict[str, Any], json: bool) -> None:
    if json:
        print_json({**about, "checks": [_line(check) for check in checks]})
        return
    out = stdout()
    out.print(_table(checks))
    if about["accepted"]:
        known = "listed" if about["listed"] else "not listed; its structure was found by tracing"
        out.print(f"family   {about['family']} ({known})", soft_wrap=True)
        out.print(f"works    whence dla --by {', '.join(about['by'])}", soft_wrap=True)
        out.print(f"graphs   {'yes' if about['graphs'] else 'no'}")


def _line(check: "Check") -> dict[str, Any]:
    """A line as JSON, which has no infinities: an error that is no number is null."""
    error = check.error if isfinite(check.error) else None
    return {**asdict(check), "error": error, "passed": check.passed}


def _table(checks: "list[Check]") -> "Table":
    from rich import box
    from rich.table import Table

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("")
    out.add_column("check", no_wrap=True)
    out.add_column("claim")
    out.add_column("error", justify="right", no_wrap=True)
    out.add_column("bound", justify="right", no_wrap=True)
    for check in checks:
        verdict = "[green]ok[/]" if check.passed else "[bold red]FAIL[/]"
        out.add_row(verdict, check.name, check.claim, f"{check.error:.1e}", f"{check.bound:.0e}")
    return out
