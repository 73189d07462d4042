"""`pp.drop_missing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg._settings import logger
from thalweg.data.representation import find_representation, finite_rows
from thalweg.data.times import obs_column
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


def drop_missing(adata: AnnData, time_key: str, *, use_rep: str | None = None, copy: bool = False) -> AnnData | None:
    """Drop the cells without a finite time, and those with NaN or infinite coordinates; say how many.

    No other function of the package drops a cell.

    Parameters
    ----------
    adata
        Cells.
    time_key
        Column of ``obs``; missing and infinite values, and text such as ``"nan"``, count as no time.
    use_rep
        Key of ``obsm``, or ``"X"``, whose rows must be finite, too; None looks at no coordinates.
    copy
        Return a copy instead of dropping from ``adata``.

    Returns
    -------
    None, or the copy. The numbers of cells dropped, for each reason, are logged as a warning.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If no cell would be left, or ``adata`` is backed by a file.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.simulated(rng=0)
    >>> adata.obs.loc[adata.obs_names[:3], "time"] = float("nan")
    >>> tw.pp.drop_missing(adata, "time")
    """
    if adata.isbacked:
        raise InputError(f"adata is backed by {str(adata.filename)!r}; load it first: adata = adata.to_memory().")
    column = obs_column(adata, time_key, "time_key").astype(object)
    with_time = column.notna().to_numpy() & ~column.astype(str).str.strip().str.lower().isin(_NO_TIME).to_numpy()
    finite = np.ones(adata.n_obs, bool) if use_rep is None else finite_rows(adata, find_representation(adata, use_rep))
    keep = with_time & finite
    if not keep.any():
        raise InputError(f"no cell has a finite time in obs[{time_key!r}] and finite coordinates; nothing is dropped.")
    logger.warning(
        "dropped %d of %d cells: %d without a finite time, %d with NaN or infinite coordinates",
        int((~keep).sum()),
        len(keep),
        int((~with_time).sum()),
        int((~finite).sum()),
    )
    if copy:
        return adata[keep].copy()
    adata._inplace_subset_obs(keep)
    return None


_NO_TIME = pd.Index(["", "nan", "na", "n/a", "none", "null", "<na>", "nat", "inf", "-inf", "infinity", "-infinity"])
