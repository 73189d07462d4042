"""Fates of whole groups of cells, with intervals over replicates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg._settings import logger
from thalweg.data.arms import arms
from thalweg.data.fates import read_draws, read_fates
from thalweg.data.rates import read_weights
from thalweg.data.recipe import Columns
from thalweg.data.replicates import (
    Floats,
    Rows,
    Spread,
    fewest_replicates,
    half_width,
    over_draws,
    over_replicates,
    read_replicates,
    share_limits,
)
from thalweg.data.times import TimeMap, obs_column, parse_times
from thalweg.errors import InputError
from thalweg.get._colors import categories

if TYPE_CHECKING:
    from anndata import AnnData


def fate_shares_df(
    adata: AnnData,
    groupby: str,
    *,
    by: str | None = None,
    replicate_key: str | None = None,
    condition_key: Columns = None,
    weight_key: str | None = None,
    time_map: TimeMap | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of each fate among the cells of a time, or of groups of them, with intervals.

    The error has two parts, which add. One is the cells whose fates are averaged: how far the means of replicates
    differ, or of single cells without ``replicate_key``. The other is the fates themselves: how far the draws of
    `thalweg.tl.fate` differ, which are draws of replicates where they were made so (its ``replicate_key``, or that of
    `thalweg.tl.fit` for models). Replicates share the error of one fit, so that the first part alone is too narrow. The
    interval is by Student's t on the scale of the logit, with the degrees of freedom of both (Welch 1947).

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.fate` wrote.
    groupby
        Column of ``obs`` the fates are groups of.
    by
        Column of ``obs`` with the groups of cells whose fates are averaged, such as cell types; all cells of a time by
        default. Cells without one are left out.
    replicate_key
        Column of ``obs`` with the replicate of each cell.
    condition_key
        Column of ``obs``, or several: shares within each condition.
    weight_key
        Column of ``obs`` with a weight for each cell; each counts as one by default.
    time_map
        A number for each label of the times, where they are not numbers.
    level
        Coverage of the intervals.

    Returns
    -------
    A row for each time, group of cells (column ``by``, with it) and fate (and ``condition``): ``time``, ``group`` (the
    fate), ``n`` (cells), ``share``, its standard error ``se``, ``lower`` and ``upper``, and with ``replicate_key``
    ``n_replicates``. With one replicate ``se`` and the limits are NaN, and a warning names the times.

    Raises
    ------
    MissingKeyError
        If there are no fates or no such column.
    InputError
        If ``level`` is not between 0 and 1, or a cell has no replicate.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, found {level!r}.")
    fates = read_fates(adata, groupby)
    names = list(map(str, fates.columns))
    draws = read_draws(adata, groupby, names)
    if draws is None or draws.shape[1] < 2:
        draws = None
        logger.warning("the fates have no draws, so that intervals lack their error: tw.tl.fate(n_draws=20)")
    weights = np.ones(adata.n_obs) if weight_key is None else read_weights(adata, weight_key)
    time = parse_times(adata, str(adata.uns[f"fate_{groupby}"]["time_key"]), time_map, remark=False)
    replicate = None if replicate_key is None else read_replicates(adata, replicate_key)[0]
    fewest = None if replicate is None else fewest_replicates(replicate, time)
    rows, alone = [], set()
    for place, of in _parts(adata, time, by, condition_key):
        w = weights[of] / weights[of].sum()
        units = np.arange(len(of)) if replicate is None else replicate[of]
        share, spread = _mean(fates.to_numpy()[of], w, units)
        spreads = [spread]
        if draws is not None:
            by_draw = np.einsum("n,ndk->dk", w, draws[of])
            spreads.append(over_draws(by_draw, fewest))
        lower, upper = share_limits(share, half_width(spreads, level), 1 / (w @ w))
        counts = {"n": len(of)} | ({} if replicate is None else {"n_replicates": len(np.unique(units))})
        se = np.sqrt(np.sum([part.variance for part in spreads], axis=0))
        columns = place | {"group": names} | counts | {"share": share, "se": se, "lower": lower, "upper": upper}
        rows.append(pd.DataFrame(columns))
        alone |= {place["time"]} if replicate is not None and np.isnan(se).any() else set()
    if alone:
        logger.warning("one replicate only at the times %s, so that shares have no interval there", sorted(alone))
    return pd.concat(rows, ignore_index=True)


def _parts(
    adata: AnnData, time: Floats, by: str | None, condition_key: Columns
) -> Iterator[tuple[dict[str, float | str], Rows]]:
    """Conditions, times and groups that have cells, and the cells of each."""
    column = None if by is None else obs_column(adata, by, "by")
    for condition, cells in arms(adata, condition_key).items():
        for t in np.unique(time[cells]).tolist():
            for group in [None] if column is None else categories(column):
                here = cells & (time == t)
                place: dict[str, float | str] = {} if condition_key is None else {"condition": condition}
                place["time"] = t
                if column is not None and group is not None:
                    here = here & column.notna().to_numpy() & (column.astype(str) == group).to_numpy()
                    place[str(by)] = group
                if here.any():
                    yield place, np.flatnonzero(here)


def _mean(p: Floats, w: Floats, units: Rows) -> tuple[Floats, Spread]:
    """Mean of the fates of cells over units: replicates, or cells."""
    _, codes = np.unique(units, return_inverse=True)
    total = np.bincount(codes, w)
    means = np.stack([np.bincount(codes, w * column) for column in p.T], 1) / total[:, None]
    return over_replicates(means, np.broadcast_to(total[:, None], means.shape))
