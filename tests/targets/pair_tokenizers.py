"""The tokenizers that tests of pairs use: the demo's, which has one token a word, and one that merges bytes."""

from functools import cache

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from whence.demo import model_path


@cache
def demo() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(model_path())
