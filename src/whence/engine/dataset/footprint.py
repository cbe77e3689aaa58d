"""How much memory a batch takes while it is summed.

    bytes = 4 copies · bytes of a number · tokens of a batch · (Σ targets + Σ widths of sources + Σ heads · length)

The heads are those of attentions that a closed form looks into, whose patterns have a number for each earlier token.
Of what targets read and sources write there are about four copies: as recorded, as weighted, and the inputs and outputs
that they are made from. Cost: one forward pass of a few tokens. It does not know the blocks.
"""

from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.wired import Wired
from whence.model.selfcheck import few_tokens

_COPIES = 4


def batch_bytes(wired: Wired, rows: int, length: int) -> int:
    """The bytes that a batch takes beside the blocks.

    Args:
        wired: the run's wiring.
        rows: of a batch.
        length: of the longest row.
    """
    batch = few_tokens(wired.layout, int(wired.seen.max()) + 1)
    passed = wired.passed(batch, heard=Kernels(wired).heard)
    told = sum(one.numel() for one in (*passed.tape.leaves.values(), *passed.tape.values.values()))
    heads = sum(one.pattern.shape[1] for one in passed.attended.values())
    return _COPIES * wired.dtype.itemsize * rows * length * (told // batch.ids.numel() + heads * length)
