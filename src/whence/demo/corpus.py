"""The demo's language as texts: documents like those that the model was trained on, none of which it was trained on.

A document is some sentences of the grammar, a space between them, that fill the model's context. Cost: about 10,000
documents a second. Knows nothing of files.
"""

from random import Random

from whence.demo.grammar import sentence
from whence.demo.model import document_seed
from whence.demo.tokenizer import CONTEXT, pieces


def demo_corpus(*, documents: int = 1000, seed: int = 0) -> list[str]:
    """Return texts for the demo model, each of at least 128 tokens with its `<bos>`.

    Args:
        documents: How many.
        seed: Of the sentences.

    Raises:
        ValueError: No documents are asked for.

    Example:
        >>> len(demo_corpus(documents=3))
        3
    """
    if documents < 1:
        raise ValueError(f"documents is {documents}; it is at least 1")
    r = Random(document_seed("corpus", seed))
    return [_document(r) for _ in range(documents)]


def _document(r: Random) -> str:
    sentences: list[str] = []
    length = 1  # the <bos> that the tokenizer puts in front
    while length < CONTEXT:
        sentences.append(sentence(r))
        length += len(pieces(sentences[-1]))
    return " ".join(sentences)
