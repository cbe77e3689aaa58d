"""The program that makes the demo: grammar, model, dictionaries, parameter components and report, all from one seed.

    python -m whence.demo.train [--out DIR] [--seed 0] [--small]

Without `--out` it replaces the files that ship in the package. `--small` makes the two-layer sibling that the tests
use, with its transcoders and one deliberately poor set of them. Cost: about 27 CPU minutes, or three for the small one;
the same numbers on the same machine, close ones elsewhere.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from whence.components.loading import load_dictionary, save_dictionary
from whence.components.sets import DictionarySet
from whence.demo import components_path, model_path
from whence.demo.bars import bars
from whence.demo.decompose import make_components
from whence.demo.decompose_report import ComponentsScore
from whence.demo.decompose_training import DecomposeRecipe
from whence.demo.evaluate import TaskScore, evaluate_tasks
from whence.demo.files import save_model
from whence.demo.measure import measure
from whence.demo.model import SMALL_MODEL, ModelRecipe, document_seed, next_token_loss, train_model
from whence.demo.report import Report
from whence.demo.sets import FULL_SETS, SMALL_SETS, SetRecipe, fit_set
from whence.demo.sites import rebuilder, replaced
from whence.demo.tokenizer import build_tokenizer, documents, vocabulary
from whence.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run makes; `items` sentences a task and `measured` documents go into the report."""

    model: ModelRecipe
    sets: tuple[SetRecipe, ...]
    components: DecomposeRecipe | None = None
    items: int = 400
    measured: int = 512


FULL = Recipe(ModelRecipe(), FULL_SETS, DecomposeRecipe())
SMALL = Recipe(SMALL_MODEL, SMALL_SETS)


def train(out: Path, recipe: Recipe, *, seed: int = 0, progress: Progress = silent) -> Report:
    """Return the report of a run, its model in `out/model`, each set of dictionaries in `out/<name>`, all in 16 bits.

    The parameter components lie in `out/parameter_components`. Everything is measured as the files hold it.

    Args:
        out: Folder to write to; results of an earlier run there are replaced.
        recipe: Sizes and steps.
        seed: Sets the weights' start and every sentence drawn.
        progress: Called with (stage, done, total) after each step.
    """
    began, vocab = time.process_time(), vocabulary()
    tokenizer = build_tokenizer(vocab)
    model = train_model(recipe.model, vocab, seed=seed, progress=progress)
    save_model(out / "model", model, tokenizer)
    tasks = evaluate_tasks(model, tokenizer, items=recipe.items)
    for_fit = max((one.dictionary.documents for one in recipe.sets), default=0)
    ids = documents(document_seed("fit", seed), for_fit, recipe.model.context, vocab)
    fresh = documents(document_seed("measure", seed), recipe.measured, recipe.model.context, vocab)
    sets: dict[str, DictionarySet] = {}
    for one in recipe.sets:
        save_dictionary(out / one.name, fit_set(one, model, ids, seed, progress), dtype=torch.float16)
        sets[one.name] = load_dictionary(out / one.name)
    components = _components(out, recipe, model, vocab, seed, progress)
    report = Report(
        about=_about(recipe, seed, model, _loss(model, fresh), time.process_time() - began),
        tasks=tasks,
        dictionaries=[score for name, found in sets.items() for score in measure(name, found, model, fresh)],
        in_place={
            name: _in_place(found, model, tokenizer, recipe.items)
            for name, found in sets.items()
            if found.kind != "sae"
        },
        components=components,
    )
    report.save(out / "report.json")
    return report


def _components(
    out: Path, recipe: Recipe, model: "LlamaForCausalLM", vocab: dict[str, int], seed: int, progress: Progress
) -> ComponentsScore | None:
    if recipe.components is None:
        return None
    folder = out / components_path().name
    return make_components(
        folder, model, recipe.components, vocab, seed=seed, measured=recipe.measured, progress=progress
    )


@torch.no_grad()
def _loss(model: "LlamaForCausalLM", ids: torch.Tensor) -> float:
    return next_token_loss(model(ids).logits, ids).item()


def _in_place(
    found: DictionarySet, model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerBase", items: int
) -> Sequence[TaskScore]:
    layers = tuple(range(len(model.model.layers)))
    with replaced(model, "mlp_in", "mlp_out", rebuilder(found), layers):
        return evaluate_tasks(model, tokenizer, items=items)


def _about(recipe: Recipe, seed: int, model: "LlamaForCausalLM", loss: float, cpu_seconds: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "loss": round(loss, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_tokens": recipe.model.steps * recipe.model.batch * recipe.model.context,
        "cpu_seconds": round(cpu_seconds),
        "recipe": asdict(recipe),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with these command-line arguments (the process's own by default)."""
    parser = argparse.ArgumentParser(prog="python -m whence.demo.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder to write to (default: the files that ship)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="the two-layer sibling that the tests use")
    given = parser.parse_args(arguments)
    if given.small and given.out is None:
        parser.error("--small needs --out: what ships is the full size")
    out = given.out or model_path().parent
    with bars() as progress:
        report = train(out, SMALL if given.small else FULL, seed=given.seed, progress=progress)
    Console().print(report, f"\nWritten to {out} in {report.about['cpu_seconds'] / 60:.0f} CPU minutes.")


if __name__ == "__main__":
    main()
