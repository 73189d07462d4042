"""Rows of a long table that outlive a failure and a kill: each is stored when it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from thalweg._settings import logger
from thalweg.errors import CheckpointError, InputError
from thalweg.training.files import read_sealed, replace_file, sealed
from thalweg.training.lock import lock_folder
from thalweg.training.saving import differences

FORMAT = 1
"""Version of the file; a reader refuses newer ones."""

Row = dict[str, Any]
_PATIENCE = 60.0  # seconds that a row waits for another process to store its own


class Unit(NamedTuple):
    """What one row is of."""

    method: str
    time: float
    seed: int


class ScoreRows:
    """Rows made so far, in memory and, with a folder, in ``scores.json``.

    Parameters
    ----------
    directory
        Folder of ``scores.json``, or None.
    identity
        What decides a row besides its `Unit`, as plain values; rows of another identity are refused.
    resume
        Keep the rows found in the folder.

    Attributes
    ----------
    failures
        ``method``, ``time``, ``seed`` and ``error`` of the rows that could not be made.

    Raises
    ------
    InputError
        If the folder holds rows and ``resume`` is False, or rows of another identity, which names what differs.
    CheckpointError
        If the file is damaged or of a newer format.
    """

    def __init__(self, directory: str | PathLike[str] | None, identity: Mapping[str, Any], *, resume: bool) -> None:
        if resume and directory is None:
            raise InputError("resume=True needs checkpoint_dir, the folder to go on from.")
        self._path = None if directory is None else Path(directory) / "scores.json"
        self._identity = dict(identity)
        self._rows: dict[Unit, Row | None] = {}
        self._errors: list[Exception] = []
        self.failures: list[Row] = []
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"checkpoint_dir={str(directory)!r} cannot be written ({error}).") from None
            if self._path.exists():
                self._read(self._path, resume)

    def collect(self, unit: Unit, make: Callable[[], Row | None]) -> None:
        """Make the row of a unit unless it is there; a failure is logged and noted, and the others go on."""
        if unit in self._rows:
            return
        try:
            self._rows[unit] = make()
        except Exception as error:  # whatever it is, hours of finished rows must not go with it
            text = f"{type(error).__name__}: {error}"
            logger.error("%s at time %g, seed %d, failed and is left out (%s)", *unit, text)
            self.failures.append({**unit._asdict(), "error": text})
            self._errors.append(error)
        else:
            self._write()

    def rows(self, units: list[Unit], needed: list[Unit]) -> list[Row]:
        """The rows of the units, in their order.

        Raises
        ------
        Exception
            The first failure, if none of ``needed`` has a row.
        """
        if self._errors and not any(unit in self._rows for unit in needed):
            raise self._errors[0]
        return [row for unit in units if (row := self._rows.get(unit)) is not None]

    def _read(self, path: Path, resume: bool) -> None:
        if not resume:
            raise InputError(
                f"{path} holds the rows of an earlier call; give resume=True to go on from them, or another folder."
            )
        self._rows = self._stored(path)
        logger.info("%d finished rows are taken from %s", len(self._rows), path)

    def _stored(self, path: Path) -> dict[Unit, Row | None]:
        """Rows of a file, which must be of the same call."""
        content = read_sealed(path)
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise CheckpointError(f"{path} states no format; it is no table of scores.")
        if content["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {content['format']}, this version reads up to {FORMAT}; upgrade thalweg."
            )
        try:
            changed = differences(content["identity"], self._identity)
            rows = {Unit(*unit): row for unit, row in content["rows"]}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is no table of scores ({type(error).__name__}: {error}).") from None
        if changed:
            raise InputError(f"{path} is of another call: {'; '.join(changed)}. Give another checkpoint_dir.")
        return rows

    def _write(self) -> None:
        """Store all rows, with those that another process has stored meanwhile."""
        if self._path is None:
            return
        try:
            lock = lock_folder(self._path.parent, _PATIENCE)
            try:
                there = self._stored(self._path) if self._path.exists() else {}
                rows = [[list(unit), row] for unit, row in (there | self._rows).items()]
                replace_file(self._path, sealed({"format": FORMAT, "identity": self._identity, "rows": rows}))
            finally:
                lock.release()
        except (OSError, CheckpointError, InputError) as error:  # a table is worth more than its copy
            logger.error(
                "%s could not be written (%s); the rows before are stored, and the others go on", self._path, error
            )
