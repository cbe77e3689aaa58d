"""Loading, sizes, and logits: the model as it is."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from families import EVERY, VOCAB, fresh, loaded, prompts, tiny
from whence.errors import UnsupportedModelError
from whence.model.model import Model

WORDS = [f"w{number}" for number in range(VOCAB - 1)]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({"<unk>": 0, **{w: n + 1 for n, w in enumerate(WORDS)}}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_in_training_mode_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"LlamaForCausalLM is in training mode.*\.eval\(\)"):
        Model(fresh("llama").train())


def test_a_model_without_a_tokenizer_works_on_ids() -> None:
    model = loaded("llama")
    assert model.tokenizer is None
    assert model.logits([5, 6, 7]).shape == (1, 1, VOCAB)
    assert model.token_id(7) == 7
    with pytest.raises(ValueError, match="no tokenizer"):
        model.logits("some text")


def test_text_goes_through_the_models_own_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    model = Model(tiny("llama"), tokenizer)
    assert torch.equal(model.logits("w3 w4 w5"), model.logits([4, 5, 6]))
    assert model.token_text(4).strip() == "w3"


def test_a_saved_folder_loads_as_the_model_it_was(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = prompts(1)
    model = Model.from_pretrained(folder, revision="main", device="cpu")
    assert (model.name, model.revision, model.tokenizer) == (str(folder), "main", None)
    assert torch.equal(model.logits(ids), loaded("llama").logits(ids))
    tokenizer.save_pretrained(folder)
    assert Model.from_pretrained(folder).batch("w3 w4").ids.tolist() == [[4, 5]]


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float64])
def test_a_folder_loads_in_the_dtype_asked_for(folder: Path, dtype: str | torch.dtype) -> None:
    model = Model.from_pretrained(folder, dtype=dtype)
    assert model.dtype == (torch.bfloat16 if dtype == "bfloat16" else dtype)
    assert model.accumulation == (torch.float32 if dtype == "bfloat16" else dtype)


def test_a_repr_says_what_matters_in_one_line() -> None:
    assert repr(Model(tiny("gpt2"), name="tiny")) == (
        "Model('tiny': gpt2, 3 layers, d_model 32, 64 logits, float32, cpu)"
    )


@pytest.mark.parametrize("name", EVERY)
def test_logits_are_the_plain_forward_passs_own_at_the_rows_asked_for(name: str) -> None:
    model, ids = loaded(name), prompts()
    with torch.no_grad():
        plain = model.hf(ids, use_cache=False).logits
    assert torch.allclose(model.logits(ids, [0, -2]), plain[:, [0, -2]], atol=2e-5)
    assert torch.allclose(model.logits(ids, None), plain, atol=2e-5)


@pytest.mark.parametrize("name", ["cohere", "granite", "falcon_h1", "phi", "gptj", "gpt2", "llama tied", "qwen3"])
def test_unembedding_rows_read_the_logits_scale_and_bias_included(name: str) -> None:
    model, ids = loaded(name), prompts()
    tokens = torch.tensor([5, 63, 0])
    read: list[torch.Tensor] = []
    handle = model.layout.final_norm.register_forward_hook(lambda _, __, output: read.append(output.detach()))
    logits = model.logits(ids, None)
    handle.remove()
    directions = model.unembedding(tokens)
    assert directions.shape == (3, 32)
    assert torch.allclose(read[0] @ directions.T + model.unembedding_bias(tokens), logits[..., tokens], atol=1e-5)


def test_unembedding_of_a_half_precision_model_is_in_float32() -> None:
    assert loaded("llama", torch.bfloat16).unembedding(torch.tensor([1])).dtype == torch.float32


def test_weights_are_left_as_they_were() -> None:
    hf = fresh("gemma2")
    before = {name: parameter.clone() for name, parameter in hf.named_parameters()}
    Model(hf).logits(prompts())
    assert all(torch.equal(parameter, before[name]) for name, parameter in hf.named_parameters())


def test_a_model_without_an_output_embedding_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="output embedding"):
        Model(tiny("llama").model)


def test_a_model_that_clips_its_values_loads_without_graphs() -> None:
    model = Model(fresh("olmo", clip_qkv=0.1))
    assert not model.architecture.frozen
    assert loaded("olmo").architecture.frozen
