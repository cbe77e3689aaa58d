"""Names of positions: a template names the words of a prompt, and each token takes the name of its word.

"The {subject} that the {noun} {verb}" fits prompts of six words: plain words stand for themselves and name their slot,
words in braces name a slot that any word fills. Special tokens in front share the slot "<bos>". The tokens of a word
are those that the prompt grows by when the word is added, so any tokenizer will do. Cost: one encoding for each word,
each beginning once. Knows nothing of pairs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

FRONT = "<bos>"
TEMPLATES = {
    "simple": "The {subject}",
    "nounpp": "The {subject} {preposition} the {noun}",
    "within_rc": "The {subject} that the {noun}",
    "rc": "The {subject} that the {noun} {verb}",
}


@dataclass(frozen=True, slots=True)
class Template:
    """The words of a prompt: the name of each, and the literal it must be ("" where any word will do)."""

    text: str
    slots: tuple[str, ...]
    literals: tuple[str, ...]


def template(slots: str) -> Template:
    """The template of this name, or the one this text spells out.

    Args:
        slots: a name in `TEMPLATES`, or words with slots in braces.

    Raises:
        ValueError: an unknown name, braces that are not a word of their own, or two slots of one name.

    Example:
        >>> template("The {subject}").slots
        ('The', 'subject')
    """
    text = TEMPLATES.get(slots, slots)
    words = text.split()
    if len(words) < 2 and "{" not in text:
        raise ValueError(
            f"slots is {slots!r}; it is None, 'index', one of {', '.join(TEMPLATES)}, or a template like "
            "'The {subject} of the {owner}'."
        )
    if any(("{" in word or "}" in word) and not re.fullmatch(r"\{[^{}]+\}", word) for word in words):
        raise ValueError(f"the template {text!r} has braces that are not a word of their own, like {{subject}}.")
    names = tuple(word.strip("{}") for word in words)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the template {text!r} has two slots {twice!r}; name one of them otherwise, in braces.")
    return Template(text, names, tuple("" if "{" in word else word for word in words))


def slots_of(
    text: str, encode: Callable[[str], tuple[int, ...]], front: int, template: Template
) -> tuple[str, ...] | None:
    """The slot of each token of a prompt; None where the template does not fit or a token spans two words.

    Args:
        text: the prompt.
        encode: text to ids, special tokens included.
        front: how many special tokens `encode` puts in front.
        template: what each word is called.

    Example:
        >>> slots_of("The cat", lambda text: tuple(map(len, text.split())), 0, template("simple"))
        ('The', 'subject')
    """
    words = list(re.finditer(r"\S+", text))
    if len(words) != len(template.slots):
        return None
    if any(literal not in ("", word.group()) for word, literal in zip(words, template.literals, strict=True)):
        return None
    names, before = [FRONT] * front, encode(text)[:front]
    for word, slot in zip(words, template.slots, strict=True):
        ids = encode(text[: word.end()])
        if ids[: len(before)] != before:
            return None
        names += [slot] * (len(ids) - len(before))
        before = ids
    return tuple(names)
