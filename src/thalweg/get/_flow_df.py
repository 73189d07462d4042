"""Mass that passes between groups from each time to the next."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.data.arms import arms
from thalweg.data.recipe import Columns
from thalweg.data.times import obs_column
from thalweg.data.transitions import read_transitions
from thalweg.errors import InputError
from thalweg.get._colors import categories

if TYPE_CHECKING:
    from anndata import AnnData


def flow_df(
    adata: AnnData,
    groupby: str,
    *,
    key: str = "transition",
    condition_key: Columns = None,
) -> pd.DataFrame:
    """Share of the cells that pass from each group to each other, from every time to the next.

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.transition` wrote.
    groupby
        Column of ``obs`` with the groups, such as cell types; cells without one are left out.
    key
        Key of ``obsp`` and ``uns`` with the couplings.
    condition_key
        Column of ``obs``, or several: shares of the cells of each condition.

    Returns
    -------
    A row for each pair of groups between which mass passes: ``t0``, ``t1``, ``source``, ``target`` and ``share``, which
    sums to one in each interval (of each ``condition``). Cells count by their weights and growth.

    Raises
    ------
    MissingKeyError
        If there are no couplings or no such column.
    InputError
        If neighbouring times are not coupled, or no cell has a group.
    """
    transitions = read_transitions(adata, key)
    column = obs_column(adata, groupby, "groupby")
    names, text = categories(column), column.astype(str).to_numpy()
    member = (text == np.array(names, dtype=object)[:, None]) & column.notna().to_numpy()
    rows, parts = [], arms(adata, condition_key)
    shared = bool((np.sum(list(parts.values()), axis=0) > 1).any())  # by a baseline
    for condition, cells in parts.items():
        for t0, t1 in pairwise(transitions.times.tolist()):
            first, last = (member[:, transitions.rows(t)] for t in (t0, t1))
            start = first * cells[transitions.rows(t0)] * transitions.share(t0)
            last = last * cells[transitions.rows(t1)] if shared else last  # a shared cell goes to every arm
            mass = transitions.push(start, t0, t1) @ last.T
            if not mass.sum() > 0:
                where = f"{condition_key} {condition!r}, " if condition_key else ""
                raise InputError(f"no mass passes between groups of obs[{groupby!r}] ({where}time {t0:g} to {t1:g}).")
            mass /= mass.sum()
            rows += [
                (condition, t0, t1, names[i], names[j], mass[i, j]) for i, j in zip(*np.nonzero(mass), strict=True)
            ]
    table = pd.DataFrame(rows, columns=["condition", "t0", "t1", "source", "target", "share"])
    return table.drop(columns="condition") if condition_key is None else table
