"""Numbers that cells carry in columns of ``obs``: weights, and rates of growth, birth and death."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.recipe import Recipe
from thalweg.data.times import obs_column
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def read_weights(adata: AnnData, key: str) -> Floats:
    """Weights of the cells from ``obs[key]``, shape ``(n_cells,)``.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    InputError
        If a weight is missing, infinite, zero or negative.
    """
    column = _numbers(adata, key, "weight_key")
    bad = ~(np.isfinite(column) & (column > 0))
    if bad.any():
        raise InputError(f"obs[{key!r}] must hold positive finite weights; {int(bad.sum())} of {len(bad)} are not.")
    return column


def read_deaths(adata: AnnData, recipe: Recipe, time: Floats, stratum: Rows, origin: Rows) -> Floats:
    """Death rates of the cells of a course, as `read_rates` reads them; ``growth_key`` then holds birth rates.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    InputError
        If there are no birth rates, a rate is missing or infinite, or a birth or death rate is negative.
    """
    key = str(recipe.death_key)
    if recipe.growth_key is None:
        raise InputError(f"death_key={key!r} needs growth_key, the column of birth rates; give both or neither.")
    deaths = read_rates(adata, key, time, stratum, origin, "death_key")
    births = read_rates(adata, recipe.growth_key, time, stratum, origin)
    for name, rates in ((recipe.growth_key, births), (key, deaths)):
        if (rates < 0).any():
            raise InputError(
                f"obs[{name!r}] has {int((rates < 0).sum())} negative rates; beside death_key both columns hold rates "
                "of 0 or more, of births in growth_key and of deaths in death_key."
            )
    return deaths


def read_rates(
    adata: AnnData,
    key: str,
    time: Floats,
    stratum: Rows | None = None,
    origin: Rows | None = None,
    argument: str = "growth_key",
) -> Floats:
    """Growth rates of the cells of a course per unit of time from ``obs[key]``, shape ``(m,)``.

    Cells of the last time (of their stratum) may lack one, as nothing shows their growth; they count as 0.

    Parameters
    ----------
    adata, key, argument
        Cells, the column, and the argument that named it.
    time, stratum, origin
        Time, stratum and row of each cell of the course, shape ``(m,)``; by default all rows, in one stratum.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    InputError
        If another cell has none, or an infinite one.
    """
    column = _numbers(adata, key, argument)
    column = column if origin is None else column[origin]
    last = pd.Series(time).groupby(np.zeros(len(time), int) if stratum is None else stratum).transform("max")
    bad = ~np.isfinite(column) & ((time < last.to_numpy()) | ~np.isnan(column))
    if bad.any():
        raise InputError(
            f"obs[{key!r}] must hold a finite growth rate for each cell before the last time; {int(bad.sum())} of "
            f"{len(bad)} have none. Run tw.pp.growth for these times."
        )
    return np.nan_to_num(column, nan=0.0)


def offspring(rate: Floats, dt: float | Floats) -> Floats:
    """Offspring of a cell after ``dt`` at a constant rate, ``exp(rate dt)``.

    Raises
    ------
    InputError
        If a number is too large or small for float64, which no population's growth is.
    """
    with np.errstate(over="ignore", under="ignore"):
        n: Floats = np.exp(rate * dt)
    if not (np.isfinite(n) & (n > 0)).all():
        worst = float(np.abs(rate * dt).max())
        raise InputError(
            f"growth by exp({worst:.3g}) within an interval: rates must be per unit of obs[time_key]. Rates of genes "
            "are per day; give day= to tw.pp.growth, e.g. day=24 for hours."
        )
    return n


def _numbers(adata: AnnData, key: str, argument: str) -> Floats:
    """A column as float64; what is no number is NaN."""
    column = pd.to_numeric(obs_column(adata, key, argument), errors="coerce")
    return column.to_numpy(np.float64, na_value=np.nan)
