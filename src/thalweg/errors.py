"""The errors thalweg raises itself; each message names the argument or key, what was found, and the fix."""


class ThalwegError(Exception):
    """Base of every error raised on purpose by thalweg."""


class InputError(ThalwegError, ValueError):
    """An argument or a data set cannot be used as it is."""


class MissingKeyError(ThalwegError, KeyError):
    """A key is absent from the AnnData; the message lists the keys that exist."""

    def __str__(self) -> str:
        # KeyError shows repr(message), which turns line breaks and quotes into escapes.
        return str(self.args[0]) if self.args else ""


class NotConvergedError(ThalwegError, RuntimeError):
    """A solver stopped before reaching the asked accuracy; no approximate result is returned."""


class NonFiniteLossError(ThalwegError, RuntimeError):
    """Training produced a NaN or infinite loss; the message names the step and the term."""


class MemoryBudgetError(ThalwegError, MemoryError):
    """A computation would need more memory than allowed; the message gives rows x columns x bytes."""
