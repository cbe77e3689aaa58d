"""What circuits are asked with: pairs of prompts from a file or made here, and the units that are nodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whence.cli.asking import dictionaries
from whence.cli.circuit_options import NATIVE
from whence.cli.console import say
from whence.cli.loading import DEMO
from whence.cli.recorded import recorded_dictionary, stated
from whence.results.words import counted

if TYPE_CHECKING:
    from whence.model.model import Model
    from whence.targets.pairs import Pairs

DEMO_SITES = ("sae_resid_post", "sae_attn_out", "sae_mlp_out")
MADE = 100  # pairs, if nobody says how many


def numbers(text: str) -> tuple[float, ...]:
    """The numbers in "0.1,0.2".

    Raises:
        ValueError: other text, or a number below 0.
    """
    found = tuple(map(float, text.split(",")))
    if not all(0 <= number < float("inf") for number in found):
        raise ValueError(text)
    return found


def check_numbers(text: str | None) -> str | None:
    """The text, if it is numbers."""
    try:
        _ = text is None or numbers(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no list of sizes, at least 0; such as 0.1,0.2,0.5") from None
    return text


@dataclass(frozen=True)
class PairsAsked:
    """Where pairs come from, as it was typed; anything that cannot be meant is said before a large model loads."""

    file: Path | None
    agreement: str | None
    relative_clauses: bool
    slots: str | None
    limit: int | None
    seed: int | None
    held_out: bool

    def __post_init__(self) -> None:
        """Refuse no source, several, and options that are for another."""
        sources = (self.file is not None) + (self.agreement is not None) + self.relative_clauses
        if sources != 1:
            raise typer.BadParameter(
                "pairs come from one place: --pairs FILE, --agreement KIND (the demo's grammar) or --relative-clauses"
            )
        if self.file is None and self.slots is not None:
            raise typer.BadParameter(
                "it names the positions of a file's prompts: it needs --pairs FILE", param_hint="--slots"
            )
        if self.file is not None and self.held_out:
            raise typer.BadParameter("a file says itself which pairs it holds: leave --held-out away")

    def arguments(self) -> tuple[str, ...]:
        """What asks for pairs to evaluate on: others of the same making where there are any."""
        if self.file is not None:
            return ("--pairs", str(self.file), *(() if self.slots is None else ("--slots", self.slots)))
        made = ("--relative-clauses",) if self.agreement is None else ("--agreement", self.agreement)
        return made if self.agreement == "simple" else (*made, "--held-out")

    def read(self, model: "Model") -> "Pairs":
        """The pairs; those of a file that cannot be used are counted on stderr."""
        if self.file is None:
            return self._made(model)
        from whence.targets.pair_files import load_pairs

        found = load_pairs(self.file, model, limit=self.limit, seed=self.seed, slots=self.slots)
        for reason, count in found.dropped.items():
            say(f"{self.file.name}: {counted(count, 'pair')} left out: {reason}")
        return found

    def _made(self, model: "Model") -> "Pairs":
        from whence.demo.pairs import agreement_pairs
        from whence.targets.pair_templates import relative_clause_pairs

        count, seed = self.limit or MADE, self.seed or 0
        if self.agreement is not None:
            return agreement_pairs(model, self.agreement, count, seed=seed, held_out=self.held_out)
        return relative_clause_pairs(model, count, seed=seed, split="test" if self.held_out else "train")


def units(references: list[str] | None, model: str) -> list[Any]:
    """The dictionaries named and the model's own units; the demo has its own SAEs if none are named.

    Raises:
        FileFormatError: no such dictionary.
    """
    if not references and model != DEMO:
        remedy = f"it needs --dictionary REF with dictionaries of this model, or {', '.join(NATIVE)}"
        raise typer.BadParameter(remedy, param_hint="--model")
    return [name if name in NATIVE else dictionaries(name, model) for name in references or DEMO_SITES]


def recorded_units(about: dict[str, Any], references: list[str] | None, model: str | None) -> list[Any]:
    """The units named, or those that a circuit was found with.

    Raises:
        FileFormatError: a dictionary is not where it was, or no longer what it was.
    """
    if references:
        return units(references, model or DEMO)
    said = stated(about, "dictionaries", "dictionary")
    return [one if isinstance(one, str) else recorded_dictionary(one) for one in said]
