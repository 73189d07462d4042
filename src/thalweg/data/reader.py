"""Reading an h5ad that a stranger wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scipy.sparse as sp

from thalweg.errors import InputError, ThalwegError, UnsafeFileError

if TYPE_CHECKING:
    from anndata import AnnData

SMALLEST_LIMIT = 64 * 2**20
LARGEST_LIMIT = 64 * 2**30
GROWTH = 100
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def default_limit(size: int) -> int:
    """Bytes that an h5ad of ``size`` bytes may take: 100 times its size, at least 64 MiB and at most 64 GiB."""
    return min(max(SMALLEST_LIMIT, GROWTH * size), LARGEST_LIMIT)


def read_h5ad(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> AnnData:
    """Read an h5ad, also one from a stranger: nothing in it can run code, name another file or fill the memory.

    The file is inspected before any array is read, then loaded by anndata, then its sparse matrices are checked, as
    indices out of range would write outside their memory. What is promised, and what is not, is in SECURITY.md.

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
        AnnData does not use, or would take more than ``max_bytes``; nothing of it is loaded.
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
    import anndata

    from thalweg.data._hdf5 import inspect

    try:
        inspect(file, limit)
        adata = anndata.read_h5ad(file)
        _check_sparse(adata, file)
    except ThalwegError:
        raise
    except Exception as error:  # whatever h5py, anndata, pandas and scipy make of a damaged file
        raise InputError(
            f"{str(path)!r} is damaged or not an h5ad ({type(error).__name__}: {_first_line(error)})."
        ) from error
    return adata


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
