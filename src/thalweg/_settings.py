"""Settings of the session: ``thalweg.settings.progress = False`` and the like."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

from thalweg.errors import InputError

logger = logging.getLogger("thalweg")
_LEVELS = ("critical", "error", "warning", "info", "debug")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the standard error that is current when a line is logged, so notebooks and captures see it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@dataclass
class Settings:
    """What applies to every call unless the call says otherwise.

    Attributes
    ----------
    progress
        Show progress bars (True).
    max_memory
        Bytes that a plan, a score, dense coordinates, or the cells in flight during an integration may take (2 GiB).
        Work is done in blocks where it can be; the rest is refused by a `MemoryBudgetError` that says its size.
    verbosity
        Level of the ``thalweg`` logger by name: ``"error"``, ``"warning"``, ``"info"`` (default) or ``"debug"``.
    """

    progress: bool = True
    max_memory: int = 2 * 2**30

    @property
    def verbosity(self) -> str:
        """Level of the ``thalweg`` logger."""
        return logging.getLevelName(logger.level).lower()

    @verbosity.setter
    def verbosity(self, level: str) -> None:
        if str(level).lower() not in _LEVELS:
            raise InputError(f"verbosity must be one of {', '.join(_LEVELS)}, found {level!r}.")
        logger.setLevel(level.upper())


def _start_logging() -> None:
    if not logger.handlers:
        handler = _Handler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


_start_logging()
settings = Settings()
