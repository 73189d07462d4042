"""Coordinates of the cells: which representation, how many columns, checked and dense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg._memory import check_memory
from thalweg._settings import logger, settings
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

_DEFAULTS = ("X_pca", "pca")
_LARGEST, _SMALLEST = 1e100, 1e-100  # their squares, summed over cells and columns, stay within float64


def find_representation(adata: AnnData, use_rep: str | None) -> str:
    """Key of the representation to use: ``use_rep`` itself, or the PCA that exists.

    Raises
    ------
    MissingKeyError
        If the key, or any PCA when ``use_rep`` is None, is absent from ``obsm``.
    """
    found = ", ".join(map(repr, adata.obsm.keys())) or "none"
    if use_rep is None:
        for key in _DEFAULTS:
            if key in adata.obsm:
                logger.info("using obsm[%r]", key)
                return key
        raise MissingKeyError(
            f"use_rep=None looks for obsm['X_pca'] or obsm['pca'], and neither exists; obsm keys that exist: {found}. "
            "Run sc.pp.pca(adata) or give use_rep."
        )
    if use_rep != "X" and use_rep not in adata.obsm:
        raise MissingKeyError(
            f"use_rep={use_rep!r} is not in adata.obsm; obsm keys that exist: {found} ('X' stands for adata.X)."
        )
    return use_rep


def read_representation(adata: AnnData, use_rep: str, n_dims: int | None = None) -> NDArray[np.float64]:
    """Coordinates of the cells as a dense float64 copy.

    Parameters
    ----------
    adata
        Cells.
    use_rep
        Key of ``obsm``, or ``"X"``.
    n_dims
        Number of leading columns; all by default.

    Returns
    -------
    Array of shape ``(n_cells, n_dims)``.

    Raises
    ------
    InputError
        If the array is not two-dimensional, not numeric, has fewer than ``n_dims`` columns, or holds NaN or infinity.
    MemoryBudgetError
        If the dense array would exceed ``thalweg.settings.max_memory``.
    """
    x, name = _read(adata, use_rep, n_dims)
    _check_finite(x, name, use_rep, adata)
    return x


def finite_rows(adata: AnnData, use_rep: str) -> NDArray[np.bool_]:
    """Which cells have finite coordinates, shape ``(n_cells,)``; raises as `read_representation` for everything else.

    Raises
    ------
    InputError
        If the array is not two-dimensional or not numeric.
    MemoryBudgetError
        If the dense array would exceed ``thalweg.settings.max_memory``.
    """
    x, _ = _read(adata, use_rep, None)
    return np.asarray(np.isfinite(x).all(1))


def _read(adata: AnnData, use_rep: str, n_dims: int | None) -> tuple[NDArray[np.float64], str]:
    """Coordinates, not yet looked at, and what they are called in messages."""
    name = "adata.X" if use_rep == "X" else f"adata.obsm[{use_rep!r}]"
    raw = _raw(adata, use_rep)
    if raw is None or len(raw.shape) != 2 or raw.shape[1] == 0:
        found = None if raw is None else tuple(raw.shape)
        raise InputError(f"{name} must have two axes (cells x one or more coordinates), found {found}.")
    columns = raw.shape[1]
    whole = isinstance(n_dims, int | np.integer) and not isinstance(n_dims, bool)
    if n_dims is not None and not (whole and 1 <= n_dims <= columns):
        raise InputError(f"n_dims={n_dims!r} does not fit {name} with {columns} columns; choose 1 to {columns}.")
    width = columns if n_dims is None else int(n_dims)
    fix = "use a PCA (sc.pp.pca) or fewer n_dims"
    check_memory(f"{name} as a dense array", raw.shape[0], width, 8, settings.max_memory, fix)
    return _dense(raw, name, width), name


def _raw(adata: AnnData, use_rep: str) -> Any:
    try:
        return adata.X if use_rep == "X" else adata.obsm[use_rep]
    except (ValueError, IndexError, TypeError) as error:
        if not (adata.isbacked and adata.is_view):
            raise
        raise InputError(
            f"adata is a view of the backed file {str(adata.filename)!r} whose rows cannot be read in this order "
            f"({error}); load it first: adata = anndata.read_h5ad(path), then subset."
        ) from None


def _check_finite(x: NDArray[np.float64], name: str, use_rep: str, adata: AnnData) -> None:
    bad = ~np.isfinite(x)
    if bad.any():
        rows, cols = np.nonzero(bad)
        raise InputError(
            f"{name} holds {int(bad.sum())} NaN or infinite values (first at row {rows[0]} "
            f"{adata.obs_names[rows[0]]!r}, column {cols[0]}; {len(set(rows.tolist()))} rows in all); "
            f"impute them, or drop these cells with tw.pp.drop_missing(adata, time_key, use_rep={use_rep!r})."
        )
    largest = float(np.abs(x).max(initial=0.0))
    if largest > _LARGEST or 0 < largest < _SMALLEST:
        raise InputError(f"{name} has values up to {largest:.3g}, whose squares leave float64; rescale it.")


def _dense(raw: Any, name: str, width: int) -> NDArray[np.float64]:
    if hasattr(raw, "iloc"):  # DataFrame
        raw = raw.to_numpy()
    if width < raw.shape[1]:  # first, so that the rest is never made dense
        raw = raw[:, :width]
    if hasattr(raw, "to_memory"):  # backed sparse
        raw = raw.to_memory()
    if hasattr(raw, "compute"):  # dask
        raw = raw.compute()
    if hasattr(raw, "toarray"):
        raw = raw.toarray()
    if np.ma.is_masked(raw):
        raise InputError(
            f"{name} is a masked array with {int(np.ma.getmaskarray(raw).sum())} masked values; fill them first."
        )
    array = np.asarray(raw)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {array.dtype}; coordinates must be real numbers.")
    return np.array(array, dtype=np.float64, order="C")
