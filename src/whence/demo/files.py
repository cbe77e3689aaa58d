"""Keeping the demo model in files that transformers reads: 16-bit weights that load as 32-bit ones.

The configuration says float32 whatever the file holds, so that a plain `from_pretrained` computes in full precision.
The trained weights were rounded to 16 bits before they were measured, so nothing is lost. File modes are set to 0644,
because safetensors writes files that only their owner can read. Cost: a few megabytes of disk.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


def save_model(folder: Path, model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the model in 16 bits and its tokenizer into one folder; the model in memory stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
