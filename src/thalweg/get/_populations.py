"""How many cells of each group there are at each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from thalweg.data.arms import arms
from thalweg.data.rates import read_weights
from thalweg.data.recipe import Columns
from thalweg.data.times import TimeMap, obs_column, parse_times
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
) -> pd.DataFrame:
    """Share of each group at each time.

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

    Returns
    -------
    A row for each time and group (and ``condition``), those that do not occur included: ``time``, ``group``, ``n``
    (cells) and ``share``, which sums to one over the groups of a time.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    InputError
        If the times or weights cannot be read.
    """
    column = obs_column(adata, groupby, "groupby")
    cells = pd.DataFrame({"time": parse_times(adata, time_key, time_map), "group": column.astype(str).to_numpy()})
    cells["weight"] = 1.0 if weight_key is None else read_weights(adata, weight_key)
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
    return table.assign(n=table["size"].astype(int), share=table["sum"] / total)[["n", "share"]].reset_index()
