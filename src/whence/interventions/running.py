"""Run a model with interventions, beside the run without them.

    clean pass      the prompt as it is; records what is held
    changed pass    one row for each list of interventions, padded into one batch

Cost: two forward passes, one more for each source prompt. Every hook is taken off again, also after an error.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whence.interventions.kinds import Intervention
from whence.interventions.outcome import Outcome, Watched
from whence.interventions.session import Freeze, seated
from whence.model.batch import Batch, Position
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Trace, Wanted
from whence.results.keys import Node

if TYPE_CHECKING:
    Interventions = Sequence[Intervention] | Sequence[Sequence[Intervention]]
else:
    Interventions = object  # run-time checkers of annotations would look at one element, and not say which


@torch.no_grad()
def intervene(
    model: Model,
    prompt: Any,
    interventions: Interventions,
    *,
    position: Position = -1,
    dictionary: Any = None,
    freeze: Freeze = Freeze(),  # noqa: B008  # frozen plain data
    watch: Sequence[str | Node] = (),
) -> Outcome:
    """What the model says when nodes are changed.

    Args:
        model: the model.
        prompt: one prompt, or one for each list of interventions, in any form the model takes.
        interventions: a list, which acts on every prompt, or a list of lists: one example each.
        position: where to return logits: one position, several, or None for all.
        dictionary: for nodes that are its features or errors.
        freeze: what is held at the clean run's values.
        watch: nodes without position whose values to return, of both runs.

    Raises:
        ValueError: a node, position, value or dictionary that does not fit; the message names it and what would.
        UnsupportedModelError: attention is to be held, or read for a pair, in a family that does not tell its patterns.

    Example:
        >>> import whence
        >>> from whence.interventions.kinds import ablate
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> intervene(model, "The actor sings", [[ablate("1.mlp")], [ablate("2.attn.head:0@3")]]).logits.shape[:2]
        torch.Size([2, 1])
    """
    batch, lists = _matched(model.batch(prompt), interventions)
    wide = Batch(batch.ids.expand(len(lists), -1), batch.lengths.expand(len(lists)))
    with seated(model, prompt, lists, batch, dictionary, freeze, watch) as session:
        rows = batch.rows(position)
        clean = record(model.layout, batch, rows, wanted=Wanted(writes=False))
        session.begin(wide)
        changed = record(model.layout, wide, rows.expand(len(lists), -1), wanted=Wanted(writes=False))
    return _outcome(model, clean, changed, rows.expand(len(lists), -1), session.watched(wide))


def _matched(batch: Batch, interventions: Interventions) -> tuple[Batch, list[list[Intervention]]]:
    """The prompts, and one list of interventions for each example."""
    given = list(interventions)
    nested = bool(given) and not isinstance(given[0], Intervention)
    lists: Any = [list(group) for group in given] if nested else [given] * len(batch.ids)  # pyright: ignore[reportArgumentType]
    odd = next((one for group in lists for one in group if not isinstance(one, Intervention)), None)
    if odd is not None:
        raise TypeError(f"interventions hold {odd!r}; make them with ablate, patch, steer or set_value")
    if len(batch.ids) not in (1, len(lists)):
        raise ValueError(
            f"{len(lists)} lists of interventions for {len(batch.ids)} prompts; give one list a prompt, or one prompt"
        )
    return batch, lists


def _outcome(model: Model, clean: Trace, changed: Trace, rows: Tensor, watched: dict[str, Watched]) -> Outcome:
    missing = (rows < 0)[..., None]

    def shown(tensor: Tensor) -> Tensor:
        return tensor.expand(len(rows), *tensor.shape[1:]).masked_fill(missing.to(tensor.device), torch.nan)

    return Outcome(
        logits=shown(changed.logits),
        clean_logits=shown(clean.logits),
        final=shown(changed.final.output),
        clean_final=shown(clean.final.output),
        rows=rows,
        model=model,
        watched=watched,
    )
