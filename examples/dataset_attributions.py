"""What makes the demo model say a verb of the right number: the parameter components that feed it, over many documents.

    The actor sings well. The actors sing well.     → " sings" or " sing", as the subject says

The model's matrices are taken apart into components. Over generated documents the attributions between all of them are
summed, exactly and in one pass; then questions are asked of the sums: which components feed " sings", which tell it
from " sing", and how sure that is. The most telling component of the last layer is then taken out of the model, and the
mean logit difference should fall by what the sums say. Runs in less than a minute, and writes the run below a folder:

    python examples/dataset_attributions.py runs/sentences
"""

import sys
from pathlib import Path

import torch

import whence
from whence.demo.corpus import demo_corpus
from whence.model.matrices import matrix_at

SINGULAR, PLURAL = " sings", " sing"
LENGTH = 24  # tokens of a document that are read


def verb_number(
    model: whence.Model, components: whence.ParameterComponents, texts: list[str], out: Path
) -> whence.DatasetAttributions:
    """The attributions between the components of every matrix, over the beginnings of texts."""
    asked = {"metrics": ("attr",), "sequence_length": LENGTH, "pack": False, "fold": 4}
    return whence.dataset_attributions(model, components, texts, out=out, **asked)


def telling_apart(model: whence.Model, found: whence.DatasetAttributions, k: int = 5) -> list[tuple[str, float]]:
    """The components that feed one form of the verb more than the other, the most telling first."""
    ends = [f"output:{model.token_id(token)}" for token in (SINGULAR, PLURAL)]
    feeds = [
        {str(one.key): one.value for one in found.top_sources(end, 10_000, sign="both") if one.site != "embed"}
        for end in ends
    ]
    keys = {*feeds[0], *feeds[1]}
    gaps = {key: feeds[0].get(key, 0.0) - feeds[1].get(key, 0.0) for key in keys}
    return sorted(gaps.items(), key=lambda one: -abs(one[1]))[:k]


def removed(model: whence.Model, components: whence.ParameterComponents, key: str, texts: list[str]) -> float:
    """By how much the mean logit difference falls when a component is taken out of its matrix."""
    node = whence.Node.parse(key)
    part = components.parts[f"{node.layer}.{node.name}"]
    weight = matrix_at(model.layout, part.site).module.weight
    rank_one = torch.outer(part.U[node.index], part.V[:, node.index])  # as a linear layer keeps its matrix
    with torch.no_grad():
        before = _difference(model, texts)
        weight -= rank_one
        after = _difference(model, texts)
        weight += rank_one
    return before - after


def _difference(model: whence.Model, texts: list[str]) -> float:
    """The mean over all tokens of how much larger the logit of one form is."""
    rows = torch.tensor([model.tokenizer(text, truncation=True, max_length=LENGTH).input_ids for text in texts])
    logits = model.hf(rows).logits
    return float((logits[..., model.token_id(SINGULAR)] - logits[..., model.token_id(PLURAL)]).mean())


def main(out: Path, documents: int = 1000) -> None:
    """Sum, ask, say how sure the answers are, and try one of them."""
    from rich import print as show

    model = whence.Model.from_pretrained(whence.demo.model_path())
    components = whence.load_components(whence.demo.components_path())
    texts = demo_corpus(documents=documents)
    found = verb_number(model, components, texts, out)
    show(found.top_sources(f"output:{model.token_id(SINGULAR)}", 8).table())
    show("These feed ' sings' more (+) or less (−) than ' sing', by token:")
    telling = telling_apart(model, found, 8)
    for key, gap in telling:
        show(f"    {key:<16}{gap:+.4f}")
    show(f"Halves of the data share {found.stability().overlap:.0%} of each unit's ten strongest sources.")
    key, gap = next((key, gap) for key, gap in telling if key.startswith("3.glu.down"))
    fallen = removed(model, components, key, texts[:200])
    show(f"Without {key} the difference falls by {fallen:+.4f}; the sums say {gap:+.4f}.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/sentences"))
