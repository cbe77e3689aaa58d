"""The errors whence raises on purpose. Each message names the thing, the value seen and the remedy.

WhenceError
├── UnsupportedModelError   a model, or one part of it, that is not understood
├── LedgerError             parts that do not add up to the number they explain
├── FileFormatError         a result or dictionary file that cannot be read
└── VerificationError       predictions that measurement does not bear out
Mistakes in arguments are `ValueError` or `TypeError`; what a model cannot offer is `NotImplementedError`.
"""


class WhenceError(Exception):
    """Any error whence raises on purpose."""


class UnsupportedModelError(WhenceError):
    """A model, or one part of it, that whence does not understand and therefore refuses."""


class LedgerError(WhenceError):
    """Parts that do not add up to the number they explain."""


class FileFormatError(WhenceError):
    """A result or dictionary file that is damaged, of an unknown version, or of another kind."""


class VerificationError(WhenceError):
    """Predicted effects that differ from the measured ones by more than was asked for."""
