"""What makes a fit go on where it was killed: what the run is, and the seed it was started with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from thalweg.data.cells import Cells
from thalweg.errors import CheckpointError, InputError
from thalweg.flows.config import FitConfig
from thalweg.flows.methods import Method
from thalweg.flows.time_axis import TimeAxis
from thalweg.training.saving import Checkpoints


class Run(NamedTuple):
    """A model to train.

    Attributes
    ----------
    rng
        What it draws from.
    checkpoints, dynamics
        Where the prediction and the dynamics save themselves; None without a folder, or without dynamics.
    """

    rng: np.random.Generator
    checkpoints: Checkpoints | None = None
    dynamics: Checkpoints | None = None

    def close(self) -> None:
        """Let other processes write into the folders."""
        for one in (self.checkpoints, self.dynamics):
            if one is not None:
                one.close()


def open_runs(
    directory: str | PathLike[str] | None,
    identity: Mapping[str, Any],
    config: FitConfig,
    generators: Sequence[np.random.Generator],
    *,
    resume: bool,
    every: int,
    fresh: bool,
    dynamics: bool = False,
) -> list[Run]:
    """A run for each generator; with a directory each has its checkpoints, several in a folder of it for each.

    Those of the dynamics lie in a folder ``dynamics`` beside those of the prediction. Parameters and errors are those
    of `open_checkpoints`.
    """
    if directory is None:
        return [Run(rng) for rng in generators]
    runs: list[Run] = []
    with ExitStack() as opened:  # what is open is closed again if one of them is refused
        for i, rng in enumerate(generators):
            folder = Path(directory) if len(generators) == 1 else Path(directory) / f"model{i}"
            own, drawn = open_checkpoints(folder, identity, config, rng, resume=resume, every=every, fresh=fresh)
            opened.callback(own.close)
            beside = None
            if dynamics:
                beside = Checkpoints(folder / "dynamics", identity, resume=resume, every=every, notes=own.notes)
                opened.callback(beside.close)
            runs.append(Run(drawn, own, beside))
        opened.pop_all()
    return runs


def open_checkpoints(
    directory: str | PathLike[str],
    identity: Mapping[str, Any],
    config: FitConfig,
    rng: np.random.Generator,
    *,
    resume: bool,
    every: int,
    fresh: bool,
) -> tuple[Checkpoints, np.random.Generator]:
    """The checkpoints of a fit, and the generator it shall draw from.

    Everything drawn before training (split, first weights) follows from the generator, so that its state at the start
    is stored and the rest is drawn again.

    Parameters
    ----------
    directory, resume, every
        See `fit`.
    identity, config
        Of `identify`, and of the fit.
    rng
        Generator of this call.
    fresh
        Whether ``rng`` was left to chance: then a resumed fit draws with the state that was stored.

    Raises
    ------
    InputError
        If the checkpoint is of another fit or another seed.
    CheckpointError
        If no checkpoint is valid.
    """
    state = _plain(rng.bit_generator.state)
    checkpoints = Checkpoints(directory, identity, resume=resume, every=every, notes={"rng": state})
    try:
        checkpoints.expect_config(config)
        stored = checkpoints.notes.get("rng")
        if stored == state:
            return checkpoints, rng
        if not fresh:
            raise InputError(
                f"{directory} was started with another rng; resume with the same seed, or with rng=None for the stored "
                "one."
            )
        return checkpoints, _restored(stored, directory)
    except BaseException:
        checkpoints.close()
        raise


def expect_threads(checkpoints: Checkpoints, method: Method) -> None:
    """Refuse to go on with another number of threads where plans depend on it in their last bits.

    Raises
    ------
    InputError
        If the checkpoint was written with another number; fits of earlier releases did not store it.
    """
    if method.coupling not in ("entropic", "unbalanced"):
        return
    name, now = "threads of the plans (torch.set_num_threads)", torch.get_num_threads()
    if checkpoints.start is None or checkpoints.stored(name) is not None:
        checkpoints.expect(**{name: now})


def identify(
    cells: Cells,
    method: Method,
    axis: TimeAxis,
    device: torch.device,
    sizes: np.ndarray[Any, Any] | None = None,
    resample: bool = False,
) -> dict[str, Any]:
    """What decides a fit besides its seed and configuration, as plain values; data by the start of their SHA-256."""
    counted = {} if sizes is None else {"population sizes": fingerprint(sizes)}
    if resample:
        counted["cells of a model"] = "bootstrap sample"
    return counted | {
        "cells": identify_cells(cells),
        "method": method.name,
        "model times": axis.tau(axis.times).tolist(),
        "device": device.type,
    }


def identify_cells(cells: Cells) -> dict[str, Any]:
    """A time course, as plain values."""
    given = {"growth rates": cells.rates, "replicates": cells.replicate, "strata": cells.within}
    return {name: fingerprint(values) for name, values in given.items() if values is not None} | {
        "shape": cells.x.shape,
        "coordinates": fingerprint(cells.x),
        "times": fingerprint(cells.time),
        "weights": fingerprint(cells.weights),
        "conditions": fingerprint(cells.condition),
        "names of conditions": cells.conditions,
    }


def fingerprint(values: np.ndarray[Any, Any]) -> str:
    """Start of the SHA-256 of an array's bytes, in row order."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """State of a numpy generator as JSON values."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _restored(state: Any, directory: str | PathLike[str]) -> np.random.Generator:
    """Generator of a stored state."""
    if not isinstance(state, Mapping) or state.get("bit_generator") != "PCG64":
        raise InputError(
            f"{directory} was started with a generator of another kind than numpy's default; give it as rng."
        )
    bits = np.random.PCG64(0)
    try:
        bits.state = cast(Any, state)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{directory} holds no state of a generator ({error}).") from None
    return np.random.Generator(bits)
