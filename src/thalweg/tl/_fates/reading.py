"""Fate probabilities in an AnnData, as those who use them read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData


def read_fates(adata: AnnData, groupby: str) -> pd.DataFrame:
    """``obsm["fate_<groupby>"]`` as a float64 DataFrame, a column for each terminal group.

    Raises
    ------
    MissingKeyError
        If there is none.
    InputError
        If it is no DataFrame, or a probability is not finite or lies outside 0 to 1.
    """
    key = f"fate_{groupby}"
    if key not in adata.obsm:
        found = ", ".join(map(repr, adata.obsm.keys())) or "none"
        raise MissingKeyError(
            f"obsm[{key!r}] does not exist; obsm keys that exist: {found}. Run tw.tl.fate(adata, {groupby!r}) first."
        )
    fates = adata.obsm[key]
    if not isinstance(fates, pd.DataFrame):
        raise InputError(
            f"obsm[{key!r}] must be a DataFrame with a column for each fate, found {type(fates).__name__}."
        )
    fates = fates.astype(np.float64)
    bad = ~fates.apply(lambda p: p.between(-1e-6, 1 + 1e-6)).to_numpy()  # false for NaN
    if bad.any():
        raise InputError(
            f"obsm[{key!r}] must hold probabilities from 0 to 1; {int(bad.any(1).sum())} of {len(bad)} cells have "
            "others (or NaN). Leave those cells out."
        )
    return fates
