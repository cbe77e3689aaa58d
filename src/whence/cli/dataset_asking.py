"""From what a run names to what the library takes: components, data, a plan; and a planned run's model, found again.

    plan.json   "load": {model, revision, dtype, device, components: [reference, ...]}

References to files are absolute there, so that a worker finds them wherever it is started.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whence.cli.asking import SHIPPED, dictionaries
from whence.cli.console import say
from whence.cli.dataset_wanted import NATIVE, Wanted
from whence.cli.loading import DEMO, load, locate
from whence.errors import FileFormatError

if TYPE_CHECKING:
    from whence.methods.dataset_plan import DatasetPlan
    from whence.model.model import Model
    from whence.progress import Progress

HUB = "hf:"


def components(references: list[str], model: str) -> list[Any]:
    """The components named: parameter components, dictionaries, and names of the model's own units.

    Raises:
        FileFormatError: a reference to nothing, or to something else.
    """
    return [name if name in NATIVE else _loaded(name, model) for name in references]


def _loaded(reference: str, model: str) -> Any:
    from whence.components.formats import hub, spd
    from whence.components.parameter_files import load_components
    from whence.demo import components_path
    from whence.results import manifest

    if reference == DEMO and model == DEMO:
        return load_components(components_path())
    if model == DEMO and reference in SHIPPED and not Path(reference).exists():
        return dictionaries(reference, model)
    found = hub.resolve(reference).root
    is_ours = (found / manifest.NAME).is_file() and manifest.load(found)["kind"] == "parameter_components"
    if is_ours or spd.recognises(found):
        return load_components(_absolute(reference))
    return dictionaries(reference, model)


def _absolute(reference: str) -> str:
    """A reference that means the same in another folder; what is no path here is left as it is."""
    path = Path(reference).expanduser()
    return str(path.resolve()) if path.exists() else reference


def data(references: list[str]) -> Any:
    """The data named, as `whence.corpus.prepare.prepare` takes it.

    Raises:
        BadParameter: a path to nothing, or several of which one is no path.
    """
    if len(references) > 1 and any(_is_named(one) for one in references):
        raise typer.BadParameter("several must all be files or folders", param_hint="--data")
    if _is_named(references[0]):
        return references[0] if references[0].startswith(HUB) else _made(references[0])
    for reference in references:
        if not Path(reference).expanduser().exists():
            raise typer.BadParameter(
                f"there is no file '{reference}'; give files, a folder, {HUB}org/name:split, or {DEMO}:1000",
                param_hint="--data",
            )
    return [Path(reference).expanduser().resolve() for reference in references]


def _is_named(reference: str) -> bool:
    return reference.startswith((HUB, f"{DEMO}:")) or reference == DEMO


def _made(reference: str) -> list[str]:
    from whence.demo.corpus import demo_corpus

    count = reference.removeprefix(DEMO).removeprefix(":") or "1000"
    if not count.isdecimal() or int(count) < 1:
        raise typer.BadParameter(f"'{reference}' is no {DEMO}:N; give a number of documents", param_hint="--data")
    return demo_corpus(documents=int(count))


def planned(wanted: Wanted, progress: "Progress") -> "DatasetPlan":
    """A new sub-run, with its data prepared and its sizes known; what cannot be meant is said before a model loads."""
    import torch

    from whence.engine.dataset.choosing import sites_of
    from whence.engine.dataset.named import sorted_out
    from whence.methods.dataset_plan import make_plan
    from whence.methods.dataset_sizes import sizes_of

    wanted.check()
    assert wanted.model is not None
    assert wanted.output is not None
    read, units = data(wanted.data or []), components(wanted.components or [], wanted.model)
    given = sorted_out(units)
    model = load(wanted.model, wanted.revision, wanted.device, wanted.dtype)
    settings = wanted.settings(model)
    first = torch.zeros(1, dtype=torch.long)
    sites_of(model, given, first, first)  # components that do not fit are refused before a folder is made
    say("preparing the data")
    plan = make_plan(
        model, given, read, wanted.output, settings,
        load=_recorded(wanted), text_field=wanted.text_field, unembedding=wanted.unembedding, progress=progress,
    )  # fmt: skip
    plan = replace(plan, sizes=sizes_of(plan, model, given))
    plan.write()
    return plan


def _recorded(wanted: Wanted) -> dict[str, Any]:
    where = locate(wanted.model or "")
    named = wanted.model if wanted.model == DEMO or not where.is_dir() else str(where.resolve())
    same = {name: getattr(wanted, name) for name in ("revision", "dtype", "device")}
    return {"model": named, "components": [_absolute(one) for one in wanted.components or ()], **same}


def found_again(
    plan: "DatasetPlan", device: str | None, model: str | None = None, references: list[str] | None = None
) -> "tuple[Model, list[Any]]":
    """The model and the components of a planned run.

    Args:
        plan: the run.
        device: where the model runs, if not where the plan says.
        model: if not the plan's own.
        references: of components, if not the plan's own.

    Raises:
        FileFormatError: neither named nor in the plan.
    """
    said = plan.load or {}
    name, named = model or said.get("model"), references or said.get("components")
    if name is None or not named:
        raise FileFormatError(
            f"{plan.folder} was planned in Python, with a model and components in memory, and does not say where they "
            "are. Run it in Python, or plan it with `whence dataset plan`."
        )
    units = components(named, name)
    return load(name, said.get("revision"), device or said.get("device"), said.get("dtype")), units
