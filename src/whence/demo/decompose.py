"""The program that decomposes the shipped demo model's matrices into parameter components, and measures them.

    python -m whence.demo.decompose [--out DIR] [--seed 0]

Without `--out` it replaces the components that ship in the package; what it measures goes into the report beside
them, under "components". `whence.demo.train` does the same as its last stage. Cost: six CPU minutes; the same numbers
on the same machine with one thread, close ones elsewhere.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from whence.components.parameter_files import load_components, save_components
from whence.demo import components_path, model_path
from whence.demo.bars import bars
from whence.demo.decompose_report import ComponentsScore, measure_components
from whence.demo.decompose_training import DecomposeRecipe, decompose
from whence.demo.model import document_seed
from whence.demo.tokenizer import documents, vocabulary
from whence.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def make_components(
    folder: Path,
    model: "LlamaForCausalLM",
    recipe: DecomposeRecipe,
    vocab: dict[str, int],
    *,
    seed: int = 0,
    measured: int = 512,
    progress: Progress = silent,
) -> ComponentsScore:
    """Decompose a model, keep the components in 16 bits, and return how good they are as the files hold them.

    Args:
        folder: Where the components go; earlier ones there are replaced.
        model: A model of the demo's grammar; it stays as it is.
        recipe: Sizes and steps.
        vocab: The demo's vocabulary.
        seed: Sets the networks' start, every sentence and every mask drawn.
        measured: Documents to measure on.
        progress: Called with (stage, done, total) after each step.
    """
    save_components(folder, decompose(model, recipe, vocab, seed=seed, progress=progress), dtype=torch.float16)
    fresh = documents(document_seed("measure", seed), measured, recipe.context, vocab)
    return measure_components(load_components(folder), model, fresh)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with these command-line arguments (the process's own by default)."""
    from transformers import LlamaForCausalLM

    parser = argparse.ArgumentParser(prog="python -m whence.demo.decompose", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder of the components (default: those that ship)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=DecomposeRecipe().steps)
    given = parser.parse_args(arguments)
    folder = given.out or components_path()
    model = LlamaForCausalLM.from_pretrained(model_path()).eval()
    with bars() as progress:
        recipe = DecomposeRecipe(steps=given.steps)
        score = make_components(folder, model, recipe, vocabulary(), seed=given.seed, progress=progress)
    _write_beside(folder.parent / "report.json", score)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    Console().print(
        score, f"\nWritten to {folder}: {size:.2f} MB in {score.about['cpu_seconds'] / 60:.1f} CPU minutes."
    )


def _write_beside(path: Path, score: ComponentsScore) -> None:
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**report, "components": score.rows()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
