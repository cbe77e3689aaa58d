"""Tokenizers and a readout small enough to know by heart, for tests of tokens and targets."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from whence.model.tokens import token_id, token_text

WORDS = ["<unk>", "<bos>", "▁Mary", "▁John", "▁Miss", "iss", "ippi", "▁", "Mary", ".", "▁Austin", "▁Boston", "▁Texas"]
MARY, JOHN, AUSTIN, BOSTON, TEXAS = (WORDS.index(f"▁{word}") for word in ("Mary", "John", "Austin", "Boston", "Texas"))


def metaspace(prepend: str = "never", words: list[str] = WORDS, unk: str = "<unk>") -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose pieces mark a leading space with ▁."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unk))
    pieces = Regex("▁?(Mary|John|Miss|Austin|Boston|Texas)|iss|ippi|[^A-Za-z▁]|[a-z]+")
    split = pre_tokenizers.Split(pieces, "isolated")
    marks = pre_tokenizers.Metaspace("▁", prepend_scheme=prepend, split=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([marks, split])
    made.decoder = decoders.Metaspace("▁", prepend_scheme=prepend)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=unk, bos_token="<bos>")


def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which, as in GPT-2, one special token is begin, end and unknown at once."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=264, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([" Mary Mary Mary John"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<|end|>", bos_token="<|end|>")


class TinyReadout:
    """A readout with known rows and three logits more than its tokenizer has tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = len(WORDS) + 3
        self.d_model = 4
        self.device = torch.device("cpu")
        self.rows = torch.randn(self.vocab_size, self.d_model, generator=torch.Generator().manual_seed(0))

    def unembedding(self, ids: Tensor) -> Tensor:
        return self.rows[ids]

    def token_id(self, token: str | int) -> int:
        return token_id(self.tokenizer, self.vocab_size, token)

    def token_text(self, id: int) -> str:
        return token_text(self.tokenizer, id)
