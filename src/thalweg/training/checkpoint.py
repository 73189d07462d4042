"""Checkpoints: numbered folders that are whole or not there, of which any damage is found.

    <directory>/step-00000250/model.safetensors        weights under training
                              average.safetensors      their running average
                              best.safetensors         the averaged weights to be kept
                              optimizer.safetensors    moments of the optimiser
                              generators.safetensors   states of the generators
                              meta.json                step, history, best value, sums, versions, what the run is
                              manifest.json            format, and size and SHA-256 of each file; sealed by its own
    <directory>/LATEST                                 name of the newest, and the SHA-256 of its manifest

A folder is written under another name, forced to the disk and renamed; `LATEST` is replaced last. A kill or a full
disk at any moment therefore leaves the checkpoint before in place. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from thalweg import __version__
from thalweg._settings import logger
from thalweg.errors import CheckpointError
from thalweg.training.files import (
    read_json,
    read_sealed,
    read_tensors,
    replace_file,
    sealed,
    sync_folder,
    to_json,
    to_safetensors,
    write_file,
)

FORMAT = 1
"""Version of the files described above; a reader refuses newer ones."""

_FOLDER = re.compile(r"step-(\d{8,18})")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,63}\.safetensors|meta\.json")
_LATEST = re.compile(r"(step-\d{8,18}) ([0-9a-f]{64})\n")


class NewerFormatError(CheckpointError):
    """The checkpoint is not damaged, but was written by a later version of thalweg."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read.

    Attributes
    ----------
    path
        Its folder.
    step
        Optimiser steps done.
    tensors
        Tensors of each safetensors file, by its name without the ending.
    meta
        Content of ``meta.json``.
    """

    path: Path
    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    meta: Mapping[str, Any]


def write_checkpoint(
    directory: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write a checkpoint, make it the latest, and remove those that are not kept.

    Parameters
    ----------
    directory
        Folder of the run's checkpoints.
    step
        Optimiser steps done; names the folder.
    tensors
        Tensors of each file, by its name without the ending.
    meta
        Plain values for ``meta.json``.
    keep
        Checkpoints to keep, this one included. Later ones than ``step`` belong to a future that was given up: they go.

    Returns
    -------
    The folder of the checkpoint.

    Raises
    ------
    OSError
        If the disk is full or not writable; the checkpoints before are as they were.
    """
    path = directory / f"step-{step:08d}"
    part, old = (directory / f".{path.name}.{os.getpid()}.{ending}" for ending in ("part", "old"))
    try:
        part.mkdir()
        manifest = _write_files(part, tensors, {"step": step, **meta})
        if path.exists():  # of the same step and damaged, or of the same run before it was killed
            os.replace(path, old)
        os.replace(part, path)
        sync_folder(directory)
        replace_file(directory / "LATEST", f"{path.name} {manifest}\n".encode())
    finally:
        remove_leftovers(directory)
    for other in [p for p in folders(directory) if _step(p) > step] + folders(directory, step)[:-keep]:
        shutil.rmtree(other, ignore_errors=True)
    return path


def folders(directory: Path, last: int | None = None) -> list[Path]:
    """Folders of the checkpoints up to step ``last``, in the order of their steps."""
    found = [p for p in directory.iterdir() if _FOLDER.fullmatch(p.name)] if directory.is_dir() else []
    return sorted((p for p in found if last is None or _step(p) <= last), key=_step)


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed write left behind; none of it is ever read."""
    for path in directory.glob(".*"):
        if path.is_dir() and path.suffix in (".part", ".old") and path.name.startswith(".step-"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name == ".LATEST.part":
            path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Parameters
    ----------
    path
        A folder ``step-...``.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated or changed in any byte, or if the format is newer than this version reads.
    """
    step = _step(path)
    files = _listed(path, read_sealed(path / "manifest.json"))
    for name, entry in files.items():
        _verify(path / name, entry)
    meta = read_json(path / "meta.json")
    if not isinstance(meta, dict) or meta.get("step") != step:
        raise CheckpointError(f"{path / 'meta.json'} is not of step {step}; the folder was renamed.")
    tensors = {name[:-12]: read_tensors(path / name)[0] for name in files if name != "meta.json"}
    return Checkpoint(path, step, tensors, meta)


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """Read the newest checkpoint of a folder; None if there is none.

    If the newest one is damaged, the newest valid one is returned and a warning is logged that says so.

    Parameters
    ----------
    directory
        Folder of the run's checkpoints.

    Raises
    ------
    CheckpointError
        If there are checkpoints and none is valid, or the newest was written by a newer version of thalweg.
    """
    found = folders(directory)
    if not found and not (directory / "LATEST").exists():
        return None
    try:
        return read_checkpoint(_latest(directory))
    except NewerFormatError:
        raise
    except CheckpointError as error:
        problems = [str(error)]
    for path in reversed(found):
        try:
            checkpoint = read_checkpoint(path)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            if str(error) not in problems:
                problems.append(str(error))
        else:
            logger.warning("%s Going on from the newest valid checkpoint, %s.", " ".join(problems), path)
            return checkpoint
    raise CheckpointError(
        f"{directory} holds no valid checkpoint: {' '.join(problems)} Start again in an empty folder."
    )


def _step(path: Path) -> int:
    match = _FOLDER.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not the folder of a checkpoint; these are named step-00000250 and the like.")
    return int(match[1])


def _write_files(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> str:
    """Write the files of a checkpoint and their manifest, whose SHA-256 is returned."""
    files = {}

    def write(name: str, data: bytes) -> None:
        write_file(folder / name, data)
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    for name, values in tensors.items():
        write(f"{name}.safetensors", to_safetensors(values))
    write("meta.json", to_json(meta))
    manifest = sealed({"format": FORMAT, "thalweg": __version__, "files": files})
    write_file(folder / "manifest.json", manifest)
    sync_folder(folder)
    return hashlib.sha256(manifest).hexdigest()


def _listed(path: Path, manifest: Any) -> dict[str, Any]:
    """Files of a manifest, after its format and their names were checked."""
    where = path / "manifest.json"
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise CheckpointError(f"{where} states no format; it is no manifest of a checkpoint.")
    if version > FORMAT:
        raise NewerFormatError(
            f"{path} has format {version}, written by thalweg {manifest.get('thalweg')}; this is thalweg "
            f"{__version__}, which reads formats up to {FORMAT}. Upgrade thalweg to {manifest.get('thalweg')} or later."
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or "meta.json" not in files:
        raise CheckpointError(f"{where} lists no meta.json.")
    for name, entry in files.items():
        if not _FILE.fullmatch(name) or not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
            raise CheckpointError(f"{where} lists {name!r} as {entry!r}, which is no file of a checkpoint.")
    return files


def _verify(path: Path, entry: Mapping[str, Any]) -> None:
    """Compare a file with its entry in the manifest."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    expected, found = entry["bytes"], path.stat().st_size
    if found != expected:
        raise CheckpointError(f"{path} is damaged: it has {found} bytes of {expected}.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry["sha256"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of the manifest.")


def _latest(directory: Path) -> Path:
    """The folder that LATEST names."""
    path = directory / "LATEST"
    try:
        match = _LATEST.fullmatch(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except ValueError:
        match = None
    if match is None:
        raise CheckpointError(f"{path} is damaged: it names no checkpoint.")
    folder = directory / match[1]
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise CheckpointError(f"{manifest} is missing.")
    if hashlib.sha256(manifest.read_bytes()).hexdigest() != match[2]:
        raise CheckpointError(f"{path} or {manifest} is damaged: the SHA-256 of one is not in the other.")
    return folder
