"""`whence circuit`: sparse feature circuits over examples; found, checked against the model, compared and exported."""

from typing import Any

import typer
from typer.core import TyperGroup

from whence.cli import circuit_eval, circuit_files, circuit_find, circuit_stability


class FindByDefault(TyperGroup):
    """The commands on circuits; options without a command are those of `find`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`whence circuit --pairs FILE` is `whence circuit find --pairs FILE`."""
        found = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["find", *args] if found else args)


app = typer.Typer(cls=FindByDefault)


@app.callback()
def circuit() -> None:
    """Find which features carry a behaviour over many examples, and check it: `whence circuit --pairs FILE`."""


app.command("find")(circuit_find.find)
app.command("eval")(circuit_eval.evaluate)
app.command("stability")(circuit_stability.stability)
app.command("diff")(circuit_files.diff)
app.command("export")(circuit_files.export)
app.command("import")(circuit_files.import_file)
