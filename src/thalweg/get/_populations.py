"""How many cells of each group there are at each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg._settings import logger
from thalweg.data.arms import arms
from thalweg.data.rates import read_weights
from thalweg.data.recipe import Columns
from thalweg.data.replicates import (
    half_width,
    over_replicates,
    read_replicates,
    sampling_half_width,
    share_limits,
)
from thalweg.data.times import TimeMap, obs_column, parse_times
from thalweg.errors import InputError
from thalweg.get._colors import categories

if TYPE_CHECKING:
    from anndata import AnnData


def populations(
    adata: AnnData,
    time_key: str,
    groupby: str,
    *,
    time_map: TimeMap | None = None,
    weight_key: str | None = None,
    condition_key: Columns = None,
    replicate_key: str | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of each group at each time, with its interval over replicates.

    Parameters
    ----------
    adata
        Cells.
    time_key, time_map
        Column of ``obs`` with the times, and a number for each of its labels where they are not numbers.
    groupby
        Column of ``obs`` with the groups; cells without one are left out of the shares.
    weight_key
        Column of ``obs`` with a weight for each cell; each counts as one by default.
    condition_key
        Column of ``obs``, or several: shares within each condition.
    replicate_key
        Column of ``obs`` with the replicate of each cell, for intervals.
    level
        Coverage of the intervals.

    Returns
    -------
    A row for each time and group (and ``condition``), those that do not occur included: ``time``, ``group``, ``n``
    (cells) and ``share``, which sums to one over the groups of a time. With ``replicate_key`` also ``n_replicates``,
    ``lower`` and ``upper``: what other replicates would have, by Student's t on the scale of the logit
    (`thalweg.data.replicates`; Korn and Graubard 1998). Three replicates have wide intervals. One has none: its limits
    are NaN, and a warning names its times.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    InputError
        If the times or weights cannot be read, a cell has no replicate, or ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, found {level!r}.")
    column = obs_column(adata, groupby, "groupby")
    cells = pd.DataFrame({"time": parse_times(adata, time_key, time_map), "group": column.astype(str).to_numpy()})
    cells["weight"] = 1.0 if weight_key is None else read_weights(adata, weight_key)
    if replicate_key is not None:
        cells["replicate"] = read_replicates(adata, replicate_key)[0]
    keys = ["time"]
    cells = cells[column.notna().to_numpy()] if condition_key is None else cells
    if condition_key is not None:
        parts = [
            cells[mask & column.notna().to_numpy()].assign(condition=c)
            for c, mask in arms(adata, condition_key).items()
        ]
        cells, keys = pd.concat(parts), ["condition", "time"]
    grouped = cells.groupby([*keys, "group"], sort=True)["weight"]
    table = grouped.agg(["size", "sum"]).unstack("group", fill_value=0)
    table = table.reindex(columns=pd.MultiIndex.from_product([["size", "sum"], categories(column)]), fill_value=0)
    table = table.stack(future_stack=True).rename_axis([*keys, "group"])
    total = table.groupby(keys)["sum"].transform("sum")
    found = table.assign(n=table["size"].astype(int), share=table["sum"] / total)[["n", "share"]].reset_index()
    return found if replicate_key is None else _with_limits(found, cells, keys, level)


def _with_limits(found: pd.DataFrame, cells: pd.DataFrame, keys: list[str], level: float) -> pd.DataFrame:
    """The shares with their intervals over replicates."""
    found = found.assign(n_replicates=0, lower=np.nan, upper=np.nan)
    alone = []
    for place, part in found.groupby(keys):
        rows, names = part.index, part["group"]
        here = cells[(cells[keys] == list(place)).all(axis=1)]
        table = here.pivot_table(index="replicate", columns="group", values="weight", aggfunc="sum", fill_value=0.0)
        table = table.reindex(columns=names, fill_value=0.0)
        totals = np.broadcast_to(table.sum(axis=1).to_numpy()[:, None], table.shape)
        share, spread = over_replicates(table.to_numpy() / totals, totals)
        n = np.asarray(here["weight"].sum() ** 2 / (here["weight"] ** 2).sum())
        half = np.maximum(half_width([spread], level), sampling_half_width(share, n, level))
        lower, upper = share_limits(share, half, n)
        known = len(table) > 1
        found.loc[rows, "n_replicates"] = len(table)
        found.loc[rows, "lower"], found.loc[rows, "upper"] = (lower, upper) if known else (np.nan, np.nan)
        if not known:
            alone.append(", ".join(f"{key} {value}" for key, value in zip(keys, place, strict=True)))
    if alone:
        logger.warning("one replicate only, so that shares have no interval: %s", "; ".join(alone))
    return found
