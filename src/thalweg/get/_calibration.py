"""How far probabilities of fates are right: what they said beside what was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.times import obs_column
from thalweg.errors import InputError, MissingKeyError
from thalweg.get._transitions import fate_df

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]


def calibration_df(adata: AnnData, groupby: str, truth: str, *, n_bins: int = 10) -> pd.DataFrame:
    """Reliability of fates: the share that came true of all that had the same probability.

    The probabilities of all cells and groups are cut into bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    adata
        Cells with the fates that `thalweg.tl.fate` wrote.
    groupby
        As given to it: ``obsm["fate_<groupby>"]`` is compared.
    truth
        What became of the cells: a column of ``obs`` with the name of the group that each reached, such as the type of
        its clone; or a key of ``obsm`` with the shares of the groups, a column for each fate, in their order or named
        alike. Cells without an outcome (NaN, or a group that is no fate) are left out.
    n_bins
        Number of bins.

    Returns
    -------
    A row for each bin that holds any: ``low, high``, the number ``n`` of probabilities, their mean ``predicted``, and
    the mean ``observed``. ``attrs["ece"]`` is the expected calibration error, the mean distance of both weighted by
    ``n``; 0 is calibrated.

    Raises
    ------
    MissingKeyError
        If there are no fates, or no ``truth``.
    InputError
        If ``truth`` does not fit the fates, no cell has an outcome, or ``n_bins`` is below 1.
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise InputError(f"n_bins must be a positive integer, found {n_bins!r}.")
    fate_df(adata, groupby)  # says how fates are made where there are none
    fates: pd.DataFrame = adata.obsm[f"fate_{groupby}"]
    seen = _outcomes(adata, list(map(str, fates.columns)), truth)
    known = np.isfinite(seen).all(1) & np.isfinite(fates.to_numpy()).all(1)
    if not known.any():
        raise InputError(f"truth={truth!r} holds no outcome among the fates {list(fates.columns)}.")
    return reliability(fates.to_numpy()[known], seen[known], n_bins)


def reliability(p: Floats, seen: Floats, n_bins: int = 10) -> pd.DataFrame:
    """The table of `calibration_df` from probabilities and what was seen, arrays of one shape."""
    p, seen = np.ravel(p), np.ravel(seen)
    which = np.minimum((p * n_bins).astype(int), n_bins - 1)
    table = pd.DataFrame({"bin": which, "predicted": p, "observed": seen}).groupby("bin")
    out = table.agg(n=("predicted", "size"), predicted=("predicted", "mean"), observed=("observed", "mean"))
    out.insert(0, "low", out.index / n_bins)
    out.insert(1, "high", (out.index + 1) / n_bins)
    out.attrs["ece"] = float((out["n"] * (out["predicted"] - out["observed"]).abs()).sum() / out["n"].sum())
    return out.reset_index(drop=True)


def _outcomes(adata: AnnData, fates: list[str], truth: str) -> Floats:
    """Shares of the fates that came true, NaN where nothing is known; shape ``(n_cells, n_fates)``."""
    if truth not in adata.obsm:
        if truth not in adata.obs:
            raise MissingKeyError(f"truth={truth!r} is neither in obs nor in obsm; obsm has {list(adata.obsm)}.")
        column = obs_column(adata, truth, "truth").astype(str).to_numpy()
        out = np.stack([column == name for name in fates], 1).astype(np.float64)
        out[out.sum(1) == 0] = np.nan
        return out
    shares = adata.obsm[truth]
    if isinstance(shares, pd.DataFrame):
        absent = [name for name in fates if name not in shares.columns]
        if absent:
            raise InputError(f"obsm[{truth!r}] has no columns {absent}; columns: {list(shares.columns)}.")
        shares = shares[fates]
    found: Floats = np.asarray(shares, dtype=np.float64)
    if found.shape != (adata.n_obs, len(fates)):
        raise InputError(
            f"obsm[{truth!r}] must have a column for each of the fates {fates}, found shape {found.shape}."
        )
    return found
