"""The demo's tokenizer: one token a word, with the leading space inside it as in GPT-like tokenizers.

A token that begins a word is written "▁Austin", where "▁" stands for the space before it. A text is cut so:

1. A space is put before a text that begins with a letter ("The" and " The" are one token: no word has two forms).
2. Every space becomes "▁".
3. The text is cut into words, two digits (either with the "▁" before it, if there is one) and single marks. So
   " Austin" is the one token "▁Austin", " 1741" is the two pieces "▁17" and "41", and "42" without a space is one.
4. `<bos>` goes in front, unless `add_special_tokens=False`.

Decoding turns "▁" back into a space and keeps the first one, so the text of the single token "▁Austin" is " Austin",
and a decoded sentence begins with a space; encoding it again gives the same ids.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from whence.demo import lexicon
from whence.demo.grammar import sentence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT = 128
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, _UNK = range(4)
_PIECE = r"▁?\d\d|▁?[A-Za-z]+|[^\w\s▁]"


def pieces(text: str) -> list[str]:
    """Return the pieces of a text; the tokenizer that ships cuts the same way, about ten times slower."""
    return re.findall(_PIECE, re.sub(r"^(?=[A-Za-z])", " ", text).replace(" ", "▁"))


def vocabulary() -> dict[str, int]:
    """Return every piece that the grammar can write, numbered: the special tokens first, then by the alphabet."""
    r = Random(0)
    found = {piece for _ in range(20_000) for piece in pieces(sentence(r))}  # the words of the templates
    found |= {f"{number:02d}" for number in range(100)}
    found |= {f"▁{word}" for word in lexicon.every_word()}
    return {token: index for index, token in enumerate((*SPECIAL, *sorted(found)))}


def build_tokenizer(vocab: dict[str, int]) -> "PreTrainedTokenizerBase":
    """Return the tokenizer in transformers' form, ready for `save_pretrained`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    cut = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    cut.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\A(?=[A-Za-z])"), " "), normalizers.Replace(" ", "▁")]
    )
    cut.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    cut.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    cut.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=cut, model_max_length=CONTEXT, **names)


def documents(seed: int, count: int, length: int, vocab: dict[str, int]) -> Int[Tensor, "document pos"]:
    """Return token ids: each row is `<bos>` and then training sentences, cut at `length`."""
    r = Random(seed)
    return torch.tensor([list(_document(r, length, vocab)) for _ in range(count)])


def _document(r: Random, length: int, vocab: dict[str, int]) -> Sequence[int]:
    row = [BOS]
    while len(row) < length:
        row += [vocab[piece] for piece in pieces(sentence(r))]
    return row[:length]
