"""How well a model does each task of the demo's grammar, and what each number means.

Four metrics, always named beside the score: "top-1" (the answer has the largest logit of all), "right over wrong" (its
logit beats that of the one wrong answer), "later on top" (the likeliest two digits make a later year) and "probability
difference" (of later years minus the others). Cost: some seconds for 400 items a task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.demo import grammar
from whence.demo.grammar import AGREEMENT_KINDS, Item

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

Metric = Literal["top-1", "right over wrong", "later on top", "probability difference"]


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the report: what is drawn, how it is scored, and what of it training never showed ("" if nothing)."""

    family: str
    variety: str
    metric: Metric
    draw: Callable[[Random], Item]
    held_out: str = ""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The score of one task over `items` sentences; `held_out` says what of them training never showed."""

    family: str
    variety: str
    metric: Metric
    held_out: str
    items: int
    score: float


def _of_kind(draw: Callable[[Random], Item], kind: str, r: Random) -> Item:
    return next(item for item in iter(partial(draw, r), None) if item.kind == kind)


def _attractor(r: Random) -> Item:
    number = r.randint(0, 1)
    kind = r.choice(("pp", "orc", "pporc"))
    return grammar.agreement(r, kind, number=number, distractor=1 - number, held_out=True)


TASKS = (
    Task("agreement", "simple", "right over wrong", partial(grammar.agreement, kind="simple")),
    *(
        Task("agreement", kind, "right over wrong", partial(grammar.agreement, kind=kind, held_out=True), "noun pairs")
        for kind in AGREEMENT_KINDS
        if kind != "simple"
    ),
    Task("agreement", "attractor", "right over wrong", _attractor, "noun pairs"),
    Task("indirect object", "seen", "right over wrong", grammar.indirect_object),
    Task("indirect object", "seen", "top-1", grammar.indirect_object),
    *(
        Task("indirect object", "new", metric, partial(grammar.indirect_object, held_out=True), "name pairs")
        for metric in ("right over wrong", "top-1")
    ),
    Task("greater-than", "", "later on top", grammar.greater_than),
    Task("greater-than", "", "probability difference", grammar.greater_than),
    Task("pronoun", "plain", "right over wrong", partial(_of_kind, grammar.pronoun, "plain")),
    Task("pronoun", "attractor", "right over wrong", partial(_of_kind, grammar.pronoun, "attractor")),
    Task("one hop", "", "top-1", grammar.one_hop),
    Task("two hops", "seen", "top-1", grammar.two_hop),
    Task("two hops", "new", "top-1", partial(grammar.two_hop, held_out=True), "cities"),
    Task("list repetition", "", "top-1", grammar.induction),
    Task("opposites", "", "top-1", grammar.opposite),
    Task("addition", "", "top-1", grammar.addition),
)


def evaluate_tasks(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerBase", *, items: int = 400, seed: int = 7
) -> list[TaskScore]:
    """Return the score of every task, over `items` sentences each (every state's held-out city once)."""
    scores: list[TaskScore] = []
    for task in TASKS:
        r = Random(seed)
        sample = grammar.held_out_two_hops() if task.held_out == "cities" else [task.draw(r) for _ in range(items)]
        logits = last_logits(model, tokenizer, [item.prefix for item in sample])
        score = _SCORERS[task.metric](tokenizer, sample, logits)
        scores.append(TaskScore(task.family, task.variety, task.metric, task.held_out, len(sample), round(score, 4)))
    return scores


@torch.no_grad()
def last_logits(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, batch: int = 200
) -> Float[Tensor, "text vocab"]:
    """Return the logits that follow each text; texts are padded on the right, where causal attention never looks."""
    rows: list[Tensor] = []
    for start in range(0, len(texts), batch):
        coded = tokenizer(list(texts[start : start + batch]), padding=True, padding_side="right", return_tensors="pt")
        last = coded["attention_mask"].sum(1) - 1
        rows.append(model(coded["input_ids"]).logits[torch.arange(len(last)), last])
    return torch.cat(rows)


def _first_token(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> Tensor:
    return torch.tensor([tokenizer.encode(text, add_special_tokens=False)[0] for text in texts])


def _top_1(tokenizer: "PreTrainedTokenizerBase", items: list[Item], logits: Tensor) -> float:
    return (logits.argmax(-1) == _first_token(tokenizer, [item.answer for item in items])).float().mean().item()


def _right_over_wrong(tokenizer: "PreTrainedTokenizerBase", items: list[Item], logits: Tensor) -> float:
    right, wrong = (_first_token(tokenizer, [getattr(item, which) for item in items]) for which in ("answer", "wrong"))
    row = torch.arange(len(items))
    return (logits[row, right] > logits[row, wrong]).float().mean().item()


def _years(tokenizer: "PreTrainedTokenizerBase", items: list[Item], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of each two digits, and whether they are later than the item's start."""
    digits = _first_token(tokenizer, [f"{number:02d}" for number in range(100)])
    start = torch.tensor([int(item.wrong) for item in items])
    return logits.softmax(-1)[:, digits], torch.arange(100) > start[:, None]


def _later_on_top(tokenizer: "PreTrainedTokenizerBase", items: list[Item], logits: Tensor) -> float:
    probability, later = _years(tokenizer, items, logits)
    return later.gather(1, probability.argmax(1, keepdim=True)).float().mean().item()


def _probability_difference(tokenizer: "PreTrainedTokenizerBase", items: list[Item], logits: Tensor) -> float:
    probability, later = _years(tokenizer, items, logits)
    return (probability * later).sum(1).sub((probability * ~later).sum(1)).mean().item()


_SCORERS: dict[Metric, Callable[["PreTrainedTokenizerBase", list[Item], Tensor], float]] = {
    "top-1": _top_1,
    "right over wrong": _right_over_wrong,
    "later on top": _later_on_top,
    "probability difference": _probability_difference,
}
