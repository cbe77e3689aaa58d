"""The demo that ships: a small language model with known circuits, its dictionaries, and the program that makes them.

A four-layer Llama of a million parameters, trained on a generated English grammar (`grammar`), with transcoders, a
cross-layer transcoder and sparse autoencoders for every layer and parameter components of every matrix. Everything lies
in the package, so nothing is downloaded. `README.md` beside this file says what is shipped and how good it is;
`python -m whence.demo.train` makes it all anew. Importing this module loads no torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from whence.demo.pairs import agreement_pairs as agreement_pairs

DictionaryName: TypeAlias = Literal[
    "transcoders", "cross_layer_transcoder", "sae_resid_post", "sae_attn_out", "sae_mlp_out"
]

# Dallas is the held-out city of Texas: no training sentence says this, so the model must compose two facts.
PROMPT: Final = "The capital of the state containing Dallas is"
ANSWER: Final = " Austin"

_DATA = Path(__file__).parent / "data"


def model_path() -> Path:
    """The folder of the demo model, as `AutoModelForCausalLM` and `AutoTokenizer` read it.

    Example:
        >>> (model_path() / "config.json").is_file()
        True
    """
    return _DATA / "model"


def dictionary_path(name: DictionaryName) -> Path:
    """The folder of one of the demo model's dictionaries, as `whence.components.loading.load_dictionary` reads it.

    Args:
        name: Which of them.

    Raises:
        ValueError: No dictionary of that name is shipped.

    Example:
        >>> dictionary_path("sae_resid_post").name
        'sae_resid_post'
    """
    names = get_args(DictionaryName)
    if name not in names:
        raise ValueError(f"the demo has no dictionary {name!r}; it has {', '.join(names)}.")
    return _DATA / name


def components_path() -> Path:
    """The folder of the demo model's parameter components, as `whence.load_components` reads it.

    Example:
        >>> components_path().name
        'parameter_components'
    """
    return _DATA / "parameter_components"


def __getattr__(name: str) -> Any:
    if name != "agreement_pairs":  # the one name here whose module needs torch
        raise AttributeError(f"module 'whence.demo' has no attribute {name!r}")
    from whence.demo.pairs import agreement_pairs

    return agreement_pairs
