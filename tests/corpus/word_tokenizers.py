"""Tokenizers of five words, that differ in their special tokens and in whether they put one in front."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = {"a": 10, "b": 11, "c": 12, "d": 13, "e": 14}
SPECIAL = {"<unk>": 0, "<bos>": 1, "<eos>": 2}


def tokenizer(*named, front=False):
    cut = Tokenizer(models.WordLevel(WORDS | SPECIAL, unk_token="<unk>"))
    cut.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if front:
        cut.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=cut, **{f"{name}_token": f"<{name}>" for name in named})
