"""The AnnData that a function writes into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg._settings import logger
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


def writable(adata: AnnData, copy: bool) -> AnnData:
    """The object to write into: a copy when asked; a view is made actual first, as scanpy does. Both are in memory.

    Raises
    ------
    InputError
        If it is backed by a file that anndata cannot load.
    """
    if copy:
        return _in_memory(adata)
    if adata.is_view:
        logger.info("adata is a view; it is made an actual AnnData before writing")
        adata._init_as_actual(_in_memory(adata))
    return adata


def _in_memory(adata: AnnData) -> AnnData:
    if not adata.isbacked:
        return adata.copy()
    try:
        return adata.to_memory()
    except KeyError as error:  # anndata, if the file has no X
        raise InputError(
            f"adata is backed by {str(adata.filename)!r}, which anndata cannot load ({error}); read it without backed=."
        ) from None
