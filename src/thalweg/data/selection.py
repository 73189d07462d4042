"""Choosing cells: by name, by mask, by a column of ``obs``, or some at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.times import obs_column
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

Selection: TypeAlias = str | Sequence[str] | NDArray[Any] | pd.Series | pd.Index | Mapping[str, Any]


def select_cells(adata: AnnData, cells: Selection) -> NDArray[np.int64]:
    """Rows of the chosen cells, ascending.

    Parameters
    ----------
    adata
        Cells.
    cells
        Names; a boolean mask over all cells; or a mapping from columns of ``obs`` to a value or a list of values, all
        of which must hold.

    Raises
    ------
    MissingKeyError
        If a name or a column does not exist.
    InputError
        If the selection is empty, a mask has another length, or the selection is none of these.
    """
    if isinstance(cells, Mapping):
        rows = np.flatnonzero(_matching(adata, cells))
    else:
        array = np.asarray([cells] if isinstance(cells, str) else cells)
        if array.dtype == bool:
            if array.shape != (adata.n_obs,):
                raise InputError(f"cells as a mask must have shape ({adata.n_obs},), found {array.shape}.")
            rows = np.flatnonzero(array)
        elif array.dtype.kind in "OU" and array.ndim == 1:
            rows = _named(adata, array)
        else:
            raise InputError(
                "cells must be names, a boolean mask, or a mapping such as {'cell_type': 'B cell'}; found "
                f"{type(cells).__name__} of {array.dtype}."
            )
    if not len(rows):
        raise InputError(f"cells selects none of the {adata.n_obs} cells; found {str(cells)[:80]!r}.")
    return rows


def _named(adata: AnnData, names: NDArray[Any]) -> NDArray[np.int64]:
    rows = adata.obs_names.get_indexer(pd.Index(names))
    if (rows < 0).any():
        absent = ", ".join(map(repr, names[rows < 0][:3].tolist()))
        raise MissingKeyError(f"cells names {int((rows < 0).sum())} cells that are not in obs_names ({absent}).")
    return np.unique(rows)


def _matching(adata: AnnData, wanted: Mapping[str, Any]) -> NDArray[np.bool_]:
    keep = np.ones(adata.n_obs, dtype=bool)
    for column, value in wanted.items():
        values = obs_column(adata, column, "cells")
        one = isinstance(value, str) or np.ndim(value) == 0
        keep &= values.isin([value] if one else list(value)).to_numpy()
    return keep
