"""Where a run saves itself, and what it goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from thalweg import __version__
from thalweg._settings import logger
from thalweg.errors import CheckpointError, InputError
from thalweg.training.checkpoint import (
    Checkpoint,
    folders,
    latest_checkpoint,
    read_checkpoint,
    remove_leftovers,
    write_checkpoint,
)
from thalweg.training.config import TrainingConfig
from thalweg.training.lock import lock_folder


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    directory
        Folder of the run's checkpoints; made if it does not exist.
    identity
        What decides the run's result, as plain values by name: data (a hash of them) and options. A run goes on only
        from a checkpoint of the same identity.
    resume
        Go on from the newest valid checkpoint; without one, start anew.
    every
        Steps between two checkpoints.
    keep
        Checkpoints to keep.
    notes
        Further plain values to store, for the caller's own use.
    generators
        Generators besides that of `train` from which the run draws, by name.

    Attributes
    ----------
    start
        The checkpoint to go on from; None for a new run.

    Raises
    ------
    InputError
        If another process writes into the folder; if it holds checkpoints and ``resume`` is False; if they are of a run
        of another identity, which names what differs; if that run stopped at a loss that was not finite; if the folder
        cannot be written.
    CheckpointError
        If there are checkpoints and none is valid, or the newest is of a newer format.
    """

    def __init__(
        self,
        directory: str | PathLike[str],
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        every: int = 250,
        keep: int = 2,
        notes: Mapping[str, Any] | None = None,
        generators: Mapping[str, torch.Generator] | None = None,
    ) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, found {value!r}.")
        self.directory, self.every, self.keep = Path(directory), every, keep
        self.notes, self.generators = dict(notes or {}), dict(generators or {})
        self.start: Checkpoint | None = None
        self._identity: dict[str, Any] = {}
        self._lock = self._take_folder()
        try:
            self._open(identity, resume)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes write into the folder; `train` does so when it ends."""
        self._lock.release()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stored(self, name: str) -> Any:
        """An entry of the identity of the checkpoint to go on from; None where there is none."""
        return None if self.start is None else _values(self.start, "identity").get(name)

    def expect(self, **identity: Any) -> None:
        """Add to the identity.

        Raises
        ------
        InputError
            If the checkpoint to go on from is of another identity; names what differs.
        """
        self._identity |= identity
        if self.start is None:
            return
        stored = _values(self.start, "identity")
        changed = differences({name: stored.get(name) for name in identity}, identity)
        if changed:
            raise InputError(
                f"{self.start.path} is of another run: {'; '.join(changed)}. Resume with the same data and options, or "
                "start a new run in another checkpoint_dir."
            )

    def expect_config(self, config: TrainingConfig) -> None:
        """Add a configuration to the identity; an option younger than the checkpoint may have the value of that time.

        Raises
        ------
        InputError
            If the checkpoint to go on from is of another configuration; names what differs.
        """
        values, default = asdict(config), asdict(type(config)()) | dict(config.EARLIER)
        stored = {} if self.start is None else _values(self.start, "identity").get("config")
        if self.start is not None and isinstance(stored, dict):
            self.expect(config={k: v for k, v in values.items() if k in stored or v != default[k]})
        self._identity["config"] = values

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]) -> Path:
        """Write a checkpoint and return its folder.

        Raises
        ------
        OSError
            If it cannot be written; the checkpoints before are as they were.
        """
        versions = {"thalweg": __version__, "torch": torch.__version__}
        meta = {"versions": versions, "identity": self._identity, "notes": self.notes, **record}
        return write_checkpoint(self.directory, step, tensors, meta, self.keep)

    def _take_folder(self) -> FileLock:
        """Make the folder and keep others out of it: what lies there may be another's, half written."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(self.directory)
            remove_leftovers(self.directory)
        except OSError as error:
            raise InputError(f"checkpoint_dir={str(self.directory)!r} cannot be written ({error}).") from None
        return lock

    def _open(self, identity: Mapping[str, Any], resume: bool) -> None:
        self._check_folder(resume)
        self.start = latest_checkpoint(self.directory) if resume else None
        self.expect(**identity)
        if self.start is not None:
            self.notes = dict(_values(self.start, "notes"))
            self._check_start(self.start)
        elif resume:
            logger.info("no checkpoint in %s yet: the run starts anew", self.directory)

    def _check_folder(self, resume: bool) -> None:
        there = folders(self.directory)
        if there and not resume:
            raise InputError(
                f"checkpoint_dir={str(self.directory)!r} holds checkpoints, the newest {there[-1].name}; "
                "give resume=True to go on from it, or another folder to start anew."
            )

    def _check_start(self, start: Checkpoint) -> None:
        failure = start.meta.get("failure")
        if failure is not None:
            raise InputError(
                f"the run in {self.directory} stopped: {failure} It would stop there again; its last finite weights "
                f"are in {start.path}. Change the options and start in another checkpoint_dir."
            )
        for name, version in (("thalweg", __version__), ("torch", torch.__version__)):
            found = _values(start, "versions").get(name)
            if found != version:
                logger.warning(
                    "%s was written with %s %s, this is %s: results may differ in the last bits",
                    *(start.path, name, found, version),
                )
        logger.info("going on from step %d, %s", start.step, start.path)


def _values(checkpoint: Checkpoint, key: str) -> Mapping[str, Any]:
    found = checkpoint.meta.get(key)
    if not isinstance(found, dict):
        raise CheckpointError(f"{checkpoint.path / 'meta.json'} holds no {key}; it is no checkpoint of a run.")
    return found


def differences(found: Any, asked: Any, name: str = "") -> list[str]:
    """Where plain values as read differ from those asked for, each in words; tuples equal lists, as in JSON."""
    asked = json.loads(json.dumps(asked))
    if isinstance(found, dict) and isinstance(asked, dict):
        start = f"{name}." if name else ""
        keys = {**found, **asked}
        return [d for key in keys for d in differences(found.get(key), asked.get(key), f"{start}{key}")]
    return [] if found == asked else [f"{name} is {found!r} there and {asked!r} here"]


def load_weights(path: str | PathLike[str], kind: str = "best") -> dict[str, Tensor]:
    """Weights of a checkpoint by name, on the CPU.

    Parameters
    ----------
    path
        The folder of a checkpoint (``.../step-00000250``), or the folder of a run's checkpoints for its newest.
    kind
        ``"best"``, what the run would return now, or ``"model"``, the weights under training.

    Raises
    ------
    InputError
        If there is no checkpoint, or no such kind.
    CheckpointError
        If it is damaged or of a newer format.
    """
    path = Path(path)
    found = read_checkpoint(path) if path.name.startswith("step-") else latest_checkpoint(path)
    if found is None:
        raise InputError(f"{path} holds no checkpoint.")
    if kind not in ("best", "model") or kind not in found.tensors:
        raise InputError(f"kind must be 'best' or 'model', found {kind!r}; {found.path} has {sorted(found.tensors)}.")
    return dict(found.tensors[kind])
