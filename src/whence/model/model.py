"""A Hugging Face causal language model, as it is: loaded, tokenized, run, and read through its layout.

Weights are never edited, folded or converted. Loading runs the self-check; a model that fails it is refused.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import UnsupportedModelError
from whence.model import tokens
from whence.model.architectures import ARCHITECTURES, Architecture
from whence.model.batch import Batch, Position, pack, token_rows
from whence.model.config_fields import refuse_unknown_fields
from whence.model.layout import Layout, bind
from whence.model.linear import accumulation_dtype, constant_of, rows_of
from whence.model.recorder import record
from whence.model.selfcheck import Check, refuse_unless_passed, self_check
from whence.model.structure import infer
from whence.model.trace import Trace, Wanted
from whence.model.unwrap import unwrap


class Model:
    """A causal language model that whence can attribute.

    Args:
        hf_model: a transformers model in evaluation mode; also an nnsight `LanguageModel`, a TransformerLens
            `TransformerBridge` or a peft model around one, whose own transformers model is then used.
        tokenizer: turns text into ids; without one, token ids work everywhere.
        name: what results call the model.
        revision: of the weights, recorded in results.

    Raises:
        UnsupportedModelError: the family, a configuration field or the model's behaviour is not understood.

    Example:
        >>> import whence
        >>> from whence.demo import model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> model.n_layers, model.d_model
        (4, 128)
    """

    def __init__(
        self, hf_model: Any, tokenizer: Any = None, *, name: str | None = None, revision: str | None = None
    ) -> None:
        hf, found = unwrap(hf_model)
        if hf.training:
            raise ValueError(
                f"{type(hf).__name__} is in training mode, where dropout is active; call .eval() on it first"
            )
        self.hf = hf
        self.tokenizer = tokenizer if tokenizer is not None else found
        self.name = name or getattr(hf.config, "_name_or_path", "") or type(hf).__name__
        self.revision = revision or getattr(hf.config, "_commit_hash", None)
        self.architecture, self.listed = _architecture(hf)
        self.layout: Layout = bind(hf, self.architecture)
        self.vocab_size = _width_of_logits(hf, self.layout)
        self.checks: list[Check] = self_check(self.layout, self._embedded_tokens())
        refuse_unless_passed(self.layout, self.checks)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: Any,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> "Model":
        """The model of this name or folder, through transformers.

        Args:
            name_or_path: on the Hub or on disk.
            revision: branch, tag or commit on the Hub.
            device: where to put it; the CPU if None.
            dtype: of the weights, e.g. "bfloat16"; the checkpoint's own if None.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        hf: Any = AutoModelForCausalLM.from_pretrained(name_or_path, revision=revision, dtype=dtype or "auto")
        hf = hf.to(device) if device is not None else hf
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, revision=revision)
        except (OSError, ValueError):  # weights without a tokenizer: token ids work everywhere
            tokenizer = None
        return cls(hf.eval(), tokenizer, name=str(name_or_path), revision=revision)

    def __repr__(self) -> str:
        """One line: family, size, dtype, device."""
        return (
            f"Model({self.name!r}: {self.hf.config.model_type}, {self.n_layers} layers, d_model {self.d_model}, "
            f"{self.vocab_size} logits, {str(self.dtype).removeprefix('torch.')}, {self.device})"
        )

    # ------------------------------------------------------------ sizes
    @property
    def dtype(self) -> torch.dtype:
        """Of the forward pass."""
        return self.hf.dtype

    @property
    def accumulation(self) -> torch.dtype:
        """What attributions are summed in: float32, or float64 for a float64 model."""
        return accumulation_dtype(self.dtype)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        weight = next((p for p in self.layout.embedding.parameters() if p.device.type != "meta"), None)
        return torch.device("cpu") if weight is None else weight.device

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.hf.config.get_text_config().hidden_size)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layout.blocks)

    def _embedded_tokens(self) -> int:
        rows = getattr(self.layout.embedding, "num_embeddings", None)
        return min(int(rows), self.vocab_size) if rows is not None else self.vocab_size

    # ------------------------------------------------------------ text
    def batch(self, value: Any) -> Batch:
        """Prompts, in any form `whence.model.batch.token_rows` takes, as one padded batch on the model's device."""
        return pack(token_rows(value, self.tokenizer), self._embedded_tokens(), self.device)

    def token_id(self, token: str | SupportsIndex) -> int:
        """The id of exactly one token."""
        return tokens.token_id(self.tokenizer, self.vocab_size, token)

    def token_text(self, id: int) -> str:
        """The text of one token, leading space included."""
        return tokens.token_text(self.tokenizer, id)

    # ------------------------------------------------------------ logits
    def unembedding(self, ids: Int[Tensor, " k"]) -> Float[Tensor, "k d_model"]:
        """Directions after the final norm that read these tokens' logits: constant scale included, no softcap."""
        return self.layout.logit_scale * rows_of(self.layout.head, ids, self.d_model, self.vocab_size).to(self.device)

    def unembedding_bias(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """What the output embedding's bias adds to these tokens' logits, before any softcap, scale included."""
        like = torch.zeros((), dtype=self.accumulation, device=self.device)
        bias = constant_of(self.layout.head, self.d_model, like)
        return torch.zeros_like(ids, dtype=like.dtype) if bias is None else self.layout.logit_scale * bias[ids]

    def logits(self, value: Any, position: Position = -1) -> Float[Tensor, "example asked vocab"]:
        """The model's own logits at the positions asked for, computed nowhere else; NaN where a prompt is shorter."""
        batch = self.batch(value)
        rows = batch.rows(position)
        logits = record(self.layout, batch, rows, wanted=Wanted(writes=False)).logits
        return logits.masked_fill((rows < 0)[..., None].to(logits.device), torch.nan)

    def trace(
        self,
        value: Any,
        position: Position = None,
        *,
        writes: bool = False,
        attention: bool = False,
        scales: bool = False,
        streams: Sequence[int] = (),
    ) -> Trace:
        """What one forward pass leaves behind at the positions asked for: logits, embeddings, final stream, and more.

        Args:
            value: prompts, in any form `batch` takes; shorter ones are padded and masked.
            position: one position, several, or None for all; negative ones count from each prompt's end.
            writes: keep every writer's input and output.
            attention: keep patterns and values, by layer.
            scales: keep 1 / sigma of every norm in the blocks.
            streams: layers after which to keep the stream.

        Example:
            >>> import whence
            >>> model = whence.Model.from_pretrained(whence.demo.model_path())
            >>> model.trace("The actor sings", attention=True).attention[0].pattern.shape
            torch.Size([1, 4, 4, 4])
        """
        batch = self.batch(value)
        wanted = Wanted(writes=writes, attention=attention, scales=scales, streams=frozenset(streams))
        return record(self.layout, batch, batch.rows(position), wanted=wanted)


def _architecture(hf: Any) -> tuple[Architecture, bool]:
    """The family's entry, or one inferred from the model's structure; and whether it was listed."""
    family = str(getattr(hf.config, "model_type", None))
    if family in ARCHITECTURES:
        refuse_unknown_fields(hf)
        clips = getattr(hf.config.get_text_config(), "clip_qkv", None) is not None  # then values are not linear
        entry = ARCHITECTURES[family]
        return (replace(entry, frozen=False) if clips else entry), True
    return infer(hf), False


def _width_of_logits(hf: Any, layout: Layout) -> int:
    """One number: how many logits there are, which may exceed the tokenizer's vocabulary."""
    outputs = getattr(layout.head, "out_features", None) or getattr(hf.config, "vocab_size", None)
    if not isinstance(outputs, int):
        raise UnsupportedModelError(
            f"{type(hf).__name__}: its output embedding ({type(layout.head).__name__}) does not say how many logits it "
            "has; give it an `out_features`, or the configuration a `vocab_size`."
        )
    return outputs
