"""Let a model go on writing while interventions act.

The prompt is one pass; each new token another, on the keys and values kept from those before. Interventions without
positions, and those whose slice is open-ended, act on new tokens too; negative positions count from the prompt's end.
What is frozen is held in the prompt's pass and live after it. The tokens are those of running the whole text anew at
every step, where nothing is frozen. Cost: transformers' own `generate`, one clean pass more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.interventions.kinds import Intervention
from whence.interventions.session import Freeze, Session, seated
from whence.model.hooks import first_tensor, hooked
from whence.model.model import Model
from whence.model.recorder import run


@dataclass(frozen=True, eq=False)
class Generated:
    """The prompt with what was written after it: token ids, and their text where the model has a tokenizer."""

    ids: Int[Tensor, "example pos"]
    text: tuple[str, ...] | None
    prompt_length: int


@torch.no_grad()
def generate(
    model: Model,
    prompt: Any,
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int = 20,
    dictionary: Any = None,
    freeze: Freeze = Freeze(),  # noqa: B008  # frozen plain data
    **settings: Any,
) -> Generated:
    """What the model writes when nodes are changed: greedily, unless settings say otherwise.

    Args:
        model: the model.
        prompt: one prompt.
        interventions: what to change, in the prompt and, where open-ended, in what is written.
        max_new_tokens: how much to write.
        dictionary: for nodes that are its features or errors.
        freeze: what is held in the prompt's pass.
        settings: for transformers' `generate`, such as do_sample=True or num_return_sequences=3.

    Raises:
        ValueError: several prompts, or interventions that do not fit.

    Example:
        >>> import whence
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> generate(model, "The actor", max_new_tokens=1).ids.shape
        torch.Size([1, 4])
    """
    batch = model.batch(prompt)
    if len(batch.ids) > 1:
        raise ValueError(f"generate takes one prompt, got {len(batch.ids)}; call it once for each")
    length = batch.ids.shape[1]
    within = [_ending(one, length) for one in interventions]
    with seated(model, prompt, [within], batch, dictionary, freeze) as session:
        run(model.layout, batch)
        session.begin(batch)
        with hooked(before=[(model.layout.blocks[0], _Steps(session))]):
            ids = model.hf.generate(
                batch.ids,
                attention_mask=torch.ones_like(batch.ids),
                max_new_tokens=max_new_tokens,
                use_cache=True,
                **{"do_sample": False, **settings},
            )
    text = None if model.tokenizer is None else tuple(model.tokenizer.batch_decode(ids))
    return Generated(ids, text, length)


class _Steps:
    """Counts the tokens that have passed, and lets go of what is frozen once the prompt has."""

    def __init__(self, session: Session) -> None:
        self.session, self.passed = session, 0

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.passed:
            self.session.hold.release()
        self.session.run.start = self.passed
        self.passed += first_tensor(args, kwargs).shape[1]


def _ending(one: Intervention, length: int) -> Intervention:
    """A patch ends with the prompt: a source has nothing for tokens that are yet to come."""
    if one.operation != "patch" or one.node.position is not None:
        return one
    if one.positions is None:
        return replace(one, positions=slice(0, length))
    if isinstance(one.positions, slice) and one.positions.stop is None:
        return replace(one, positions=slice(one.positions.start, length))
    return one
