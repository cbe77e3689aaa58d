"""`whence models`: the families whence knows, and what works for each, from the table that the library itself uses."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from whence.cli.console import print_json, stdout
from whence.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from whence.model.architectures import Support

UNLISTED = (
    "One that is not listed is tried by its structure, and accepted if it passes the self-check: whence check MODEL."
)


def models(json: Json = False) -> None:
    """List the families of models and what works for each."""
    from whence.model.architectures import ARCHITECTURES, support

    listed = {family: support(entry) for family, entry in sorted(ARCHITECTURES.items())}
    if json:
        print_json([{"family": family, **asdict(offered)} for family, offered in listed.items()])
        return
    stdout().print(_table(listed))
    stdout().print(f"{len(listed)} families. {UNLISTED}")


def _table(listed: "dict[str, Support]") -> "Table":
    from rich import box
    from rich.table import Table

    from whence.model.architectures import Support

    names = [field.name for field in fields(Support)]
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("family", no_wrap=True)
    for name in names:
        out.add_column(name.replace("_", " "), no_wrap=True)
    for family, offered in listed.items():
        out.add_row(family, *("yes" if getattr(offered, name) else "[dim]no[/]" for name in names))
    return out
