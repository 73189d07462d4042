"""The one check of a size against a memory budget, and its message: rows x columns x bytes."""

from __future__ import annotations

from thalweg.errors import MemoryBudgetError

DEFAULT = 4 * 2**30
"""Bytes that functions of the core may take unless told otherwise; the rest of the package hands them its setting."""


def check_memory(what: str, rows: int, columns: int, width: int, limit: int | None, fix: str) -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    what
        What takes the memory; starts the message.
    rows, columns, width
        Its size: ``rows x columns`` numbers, or other items, of ``width`` bytes.
    limit
        Bytes allowed; `DEFAULT` for None.
    fix
        What the reader can change.

    Raises
    ------
    MemoryBudgetError
        If the product exceeds ``limit``.
    """
    size, limit = rows * columns * width, DEFAULT if limit is None else limit
    if size > limit:
        raise MemoryBudgetError(
            f"{what}: {rows} rows x {columns} columns x {width} bytes = {_readable(size)}, over max_memory = "
            f"{_readable(limit)}; {fix}, or raise thalweg.settings.max_memory."
        )


def _readable(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.2f} MiB"
