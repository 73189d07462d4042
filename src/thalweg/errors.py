"""The errors thalweg raises itself; each message names the argument or key, what was found, and the fix."""

from __future__ import annotations

from typing import Any


class ThalwegError(Exception):
    """Base of every error raised on purpose by thalweg."""


class InputError(ThalwegError, ValueError):
    """An argument or a data set cannot be used as it is."""


class UnsafeFileError(InputError):
    """A file holds what no honest file of its kind holds; nothing of it is loaded."""


class MissingKeyError(ThalwegError, KeyError):
    """A key is absent from the AnnData; the message lists the keys that exist."""

    def __str__(self) -> str:
        # KeyError shows repr(message), which turns line breaks and quotes into escapes.
        return str(self.args[0]) if self.args else ""


class NotConvergedError(ThalwegError, RuntimeError):
    """A solver stopped before reaching the asked accuracy; no approximate result is returned."""


class NonFiniteLossError(ThalwegError, RuntimeError):
    """Training produced a NaN or infinite loss; the message names the step and the term.

    Attributes
    ----------
    weights
        Copy of the last finite weights by name (tensors); empty until the training loop has filled it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.weights: dict[str, Any] = {}


class CheckpointError(ThalwegError, ValueError):
    """A checkpoint is damaged, incomplete, or of a newer format; the message names the file and the reason."""


class MemoryBudgetError(ThalwegError, MemoryError):
    """A computation would need more memory than allowed; the message gives rows x columns x bytes."""
