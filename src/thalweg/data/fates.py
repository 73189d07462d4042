"""Fate probabilities in an AnnData, as those who use them read them, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
UNKNOWN = 0.02
"""Variance that no draw of the cells shows, as a share of ``p (1 - p)``: as if ``p`` were a share among 50 cells."""
_EDGE = 1e-4  # a beta distribution has its mean inside


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


def draws_frame(draws: Floats, groups: Sequence[str], names: pd.Index) -> pd.DataFrame:
    """Fates by each draw, shape ``(n_cells, n_draws, n_groups)``, as a table that subsets and joins as others.

    Its columns are named ``"<group>:<draw>"``.
    """
    n, n_draws, k = draws.shape
    columns = [f"{group}:{i}" for group in groups for i in range(n_draws)]
    return pd.DataFrame(draws.transpose(0, 2, 1).reshape(n, k * n_draws), names, columns, dtype=np.float32)


def read_draws(adata: AnnData, groupby: str, groups: Sequence[str]) -> Floats | None:
    """Fates by each draw of the cells or each model, shape ``(n_cells, n_draws, n_groups)``; None without draws.

    Raises
    ------
    InputError
        If a group has no draws, or a cell has none (it came from other data).
    """
    key = f"fate_{groupby}_draws"
    if key not in adata.obsm:
        return None
    frame, n_draws = adata.obsm[key], 0
    while f"{groups[0]}:{n_draws}" in frame.columns:
        n_draws += 1
    names = [[f"{group}:{i}" for group in groups] for i in range(n_draws)]
    if not n_draws or not {name for row in names for name in row} <= set(frame.columns):
        raise InputError(
            f"obsm[{key!r}] holds no draws of the fates {list(groups)}; run tw.tl.fate(adata, {groupby!r}) again, or "
            f"remove it: del adata.obsm[{key!r}]."
        )
    draws = np.stack([frame[row].to_numpy(dtype=np.float64) for row in names], 1)
    missing = ~np.isfinite(draws).all((1, 2))
    if missing.any():
        raise InputError(
            f"obsm[{key!r}] lacks draws for {int(missing.sum())} of {len(missing)} cells, as after joining; run "
            f"tw.tl.fate(adata, {groupby!r}) on all of them, or remove it: del adata.obsm[{key!r}]."
        )
    return draws


def beta_law(p: Floats, error: Floats) -> tuple[Floats, Floats]:
    r"""The two parameters of the beta distribution of each probability.

    Its mean is the probability. Its variance is that of the standard error and a share of :math:`p (1 - p)`, `UNKNOWN`,
    for what all draws have in common. The share was fixed on simulated courses whose fates are known.

    Parameters
    ----------
    p, error
        Probabilities and their standard errors, of one shape.
    """
    mean = np.clip(p, _EDGE, 1 - _EDGE)
    widest = mean * (1 - mean)
    size = widest / np.clip(error**2 + UNKNOWN * widest, 1e-10, 0.98 * widest) - 1
    return mean * size, (1 - mean) * size


def fate_interval(p: Floats, error: Floats, level: float) -> tuple[Floats, Floats]:
    """Lower and upper limits of probabilities with the coverage ``level``; see `beta_law`."""
    from scipy.stats import beta

    law = beta_law(p, error)
    low, high = (np.asarray(beta.ppf(q, *law)) for q in ((1 - level) / 2, (1 + level) / 2))
    return np.minimum(low, p), np.maximum(high, p)
