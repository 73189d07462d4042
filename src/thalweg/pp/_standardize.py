"""`pp.standardize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg._settings import logger
from thalweg.data.representation import find_representation, read_representation
from thalweg.data.writing import writable
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


def standardize(
    adata: AnnData,
    *,
    use_rep: str | None = None,
    n_dims: int | None = None,
    key_added: str = "X_standardized",
    copy: bool = False,
) -> AnnData | None:
    """Z-score each column of a representation over all cells, as the five-component benchmarks of the field do.

    Parameters
    ----------
    adata
        Cells.
    use_rep
        Key of ``obsm``; by default the PCA that exists.
    n_dims
        Number of leading columns; all by default.
    key_added
        Key of ``obsm`` to write.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obsm[key_added]`` : array, float32, shape ``(n_cells, n_dims)``
        Columns of mean 0 and standard deviation 1.
    ``adata.uns[key_added]`` : dict
        ``use_rep``, and the ``mean`` and ``sd`` of its columns, which lead back to it (and, from a PCA, to genes).

    Raises
    ------
    MissingKeyError
        If the representation does not exist.
    InputError
        If it cannot be used, or a column is constant.
    """
    rep = find_representation(adata, use_rep)
    x = read_representation(adata, rep, n_dims)
    sd = x.std(0)
    if (sd == 0).any():
        raise InputError(
            f"column {int(np.flatnonzero(sd == 0)[0])} of {rep!r} is constant and cannot be standardised; drop it."
        )
    out = writable(adata, copy)
    out.obsm[key_added] = ((x - x.mean(0)) / sd).astype(np.float32)
    out.uns[key_added] = {"use_rep": rep, "mean": x.mean(0), "sd": sd}
    logger.info("added obsm[%r]: %d standardised columns of %r; uns[%r]", key_added, x.shape[1], rep, key_added)
    return out if copy else None
