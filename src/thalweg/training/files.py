"""Files that are whole or not there, and that say when they are damaged: sealed JSON and safetensors.

A file is written beside its place, forced to the disk, and moved into place in one step. Sealed JSON carries the
SHA-256 of its content and has one spelling only, so that any changed byte is found. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from thalweg.errors import CheckpointError

HEADER_LIMIT = 4 * 2**20
"""Bytes of a safetensors header, which lists about forty thousand tensors: more is refused before it is parsed."""

JSON_LIMIT = 256 * 2**20
"""Bytes of a JSON file: more is refused before it is read."""


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and force it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds either the old content or all of the new, also after a kill."""
    part = path.with_name(f".{path.name}.part")
    write_file(part, data)
    os.replace(part, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the entries of a folder to the disk, where the system has a way to."""
    if os.name == "posix":
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def to_json(content: object) -> bytes:
    """The one spelling of plain values as JSON; floats come back to the bit."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_json(path: Path) -> Any:
    """Values of a JSON file.

    Raises
    ------
    CheckpointError
        If the file is absent, too large or no JSON.
    """
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes; more than {JSON_LIMIT} are not read.")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not readable as JSON ({error}).") from None


def sealed(content: object) -> bytes:
    """JSON of ``{"content": ..., "sha256": ...}``, the hash being that of the content's JSON."""
    return to_json({"content": content, "sha256": hashlib.sha256(to_json(content)).hexdigest()})


def read_sealed(path: Path) -> Any:
    """Content of a file of `sealed`.

    Raises
    ------
    CheckpointError
        If the file is absent or differs from what was written in any byte.
    """
    found = read_json(path)
    if not isinstance(found, dict) or "content" not in found or sealed(found["content"]) != path.read_bytes():
        raise CheckpointError(f"{path} is damaged: its content does not match its SHA-256.")
    return found["content"]


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as safetensors bytes; those that share memory are written each in full."""
    plain = {name: v.detach().to("cpu", copy=True).contiguous() for name, v in tensors.items()}
    return save(plain, None if metadata is None else dict(metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a safetensors file, on the CPU, and its metadata.

    Raises
    ------
    CheckpointError
        If the file is absent, claims a header beyond its size or `HEADER_LIMIT`, or is not safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if size < 8 or header > min(size - 8, HEADER_LIMIT):
            raise CheckpointError(f"{path} claims a header of {header} bytes in a file of {size}; it is not read.")
        with safe_open(path, framework="pt") as file:
            # Cloned: a tensor may otherwise be a window on the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a dict
            return tensors, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not readable as safetensors ({error}).") from None
