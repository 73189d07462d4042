"""One process at a time in a folder: a lock that the system gives back when its holder ends, however it ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from thalweg.errors import InputError

NAME = ".lock"


def lock_folder(folder: Path, seconds: float = 0.0) -> FileLock:
    """Take the lock of a folder; ``release()`` gives it back.

    Parameters
    ----------
    folder
        An existing folder; the file ``.lock`` in it stays.
    seconds
        How long to wait for another process.

    Raises
    ------
    InputError
        If another process holds it.
    OSError
        If the folder cannot be written.
    """
    lock = FileLock(folder / NAME, thread_local=False)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise InputError(
            f"{folder} is in use by another process that writes into it; wait until it ends, or give another folder."
        ) from None
    return lock
