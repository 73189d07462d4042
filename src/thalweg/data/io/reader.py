"""Reading an h5ad that a stranger wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scipy.sparse as sp

import thalweg
from thalweg.errors import InputError, ThalwegError, UnsafeFileError

if TYPE_CHECKING:
    from anndata import AnnData

SMALLEST_LIMIT = 64 * 2**20
LARGEST_LIMIT = 64 * 2**30
GROWTH = 100
PATIENCE = 60.0  # seconds
SLOWEST = 2e6  # bytes of the file a second, beside them
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def default_limit(size: int) -> int:
    """Bytes that an h5ad of ``size`` bytes may take: 100 times its size, at least 64 MiB and at most 64 GiB."""
    return min(max(SMALLEST_LIMIT, GROWTH * size), LARGEST_LIMIT)


def read_h5ad(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> AnnData:
    """Read an h5ad, also one from a stranger: nothing in it can run code, name another file or fill the memory.

    A process of its own inspects the file before any array is read, then reads all of it a block at a time: bytes on
    which the HDF5 library crashes or never ends do so there. That takes about a second, and the time of reading the
    file once. Then anndata loads the file, and its sparse matrices are checked, as indices out of range would write
    outside their memory. SECURITY.md says what is promised, and what is not.

    Parameters
    ----------
    path
        File.
    max_bytes
        Bytes that all arrays of the file, decompressed, may take. By default 100 times the size of the file, at least
        64 MiB and at most 64 GiB.

    Returns
    -------
    The AnnData, in memory.

    Raises
    ------
    UnsafeFileError
        If the file links to another file or to itself, keeps values in other files, holds types or compression that
        AnnData does not use, would take more than ``max_bytes``, or makes the HDF5 library crash or hang; nothing of it
        is loaded.
    InputError
        If there is no such file, it is no HDF5, or it is damaged.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.read_h5ad("course.h5ad")  # doctest: +SKIP
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{str(path)!r} is not a file; give an h5ad.")
    with file.open("rb") as start:
        if start.read(8) != _SIGNATURE:
            raise InputError(f"{str(path)!r} does not start as an HDF5 file does; give an h5ad.")
    size = file.stat().st_size
    limit = default_limit(size) if max_bytes is None else max_bytes
    if limit < 1:
        raise InputError(f"max_bytes must be at least 1, found {max_bytes!r}.")
    _rehearse(file, limit)
    import anndata

    try:
        adata = anndata.read_h5ad(file)
        _check_sparse(adata, file)
    except ThalwegError:
        raise
    except Exception as error:  # whatever h5py, anndata, pandas and scipy make of a damaged file
        raise InputError(
            f"{str(path)!r} is damaged or not an h5ad ({type(error).__name__}: {_first_line(error)})."
        ) from error
    return adata


def _rehearse(file: Path, limit: int) -> None:
    """Read the file in a process of its own, see `thalweg.data.io.hdf5`."""
    package = str(Path(thalweg.__file__).parents[1])
    # -P: a module beside the file of a stranger is not imported.
    code = f"import sys; sys.path.append({package!r}); from thalweg.data.io.hdf5 import main; main()"
    seconds = PATIENCE + file.stat().st_size / SLOWEST
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(file), str(limit)], capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnsafeFileError(f"{file}: reading it does not end within {seconds:.0f} s; it is damaged.") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise UnsafeFileError(
            f"{file}: the HDF5 library crashes on it (exit status {done.returncode}); it is damaged."
        ) from None
    if "unsafe" in answer:
        raise UnsafeFileError(answer["unsafe"])
    if answer:
        raise InputError(f"{str(file)!r} is damaged or not an h5ad ({answer['damaged'].splitlines()[0][:200]}).")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0][:200]


def _check_sparse(adata: AnnData, file: Path) -> None:
    for name, matrix in _sparse(adata):
        try:
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise UnsafeFileError(
                f"{file}: {name} is a sparse matrix whose indices do not fit its shape ({error}); it is not used."
            ) from None


def _sparse(adata: AnnData) -> Iterator[tuple[str, Any]]:
    found: dict[str, Any] = {"X": adata.X, "raw.X": None if adata.raw is None else adata.raw.X, "uns": adata.uns}
    found |= {name: getattr(adata, name) for name in ("layers", "obsm", "varm", "obsp", "varp")}
    pending = list(found.items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f"{name}[{key!r}]", item) for key, item in value.items()]
        elif sp.issparse(value):
            yield name, value
