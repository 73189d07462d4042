"""A time course as arrays: one row for each cell, its time, weight and condition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.advice import advise
from thalweg.data.representation import find_representation, read_representation
from thalweg.data.times import TimeMap, obs_column, parse_times
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshots:
    """Cells observed at several times, checked.

    Attributes
    ----------
    x
        Coordinates, shape ``(n, d)``.
    time
        Time of each cell, shape ``(n,)``.
    weights
        Positive weight of each cell, shape ``(n,)``.
    condition
        Index into ``conditions`` for each cell, shape ``(n,)``; all zero without a condition.
    conditions
        Names of the conditions; empty without a condition.
    use_rep
        Where the coordinates came from.
    rates
        Growth rate of each cell per unit of time, shape ``(n,)``; None without growth.
    """

    x: Floats
    time: Floats
    weights: Floats
    condition: NDArray[np.int64]
    conditions: tuple[str, ...]
    use_rep: str
    rates: Floats | None = None

    @cached_property
    def times(self) -> Floats:
        """The observed times, ascending."""
        return np.unique(self.time)

    @property
    def n_dims(self) -> int:
        """Number of coordinates."""
        return self.x.shape[1]

    def rows(self, time: float, condition: int | None = None) -> NDArray[np.int64]:
        """Rows of the cells observed at ``time`` (and in a condition), in their order."""
        keep = self.time == time
        if condition is not None:
            keep &= self.condition == condition
        return np.flatnonzero(keep)

    def at(self, time: float) -> Floats:
        """Coordinates of the cells observed at ``time``."""
        return self.x[self.time == time]

    def grown(self, rows: NDArray[np.int64], dt: float) -> Floats:
        """Weights of some cells after ``dt``: each times its descendants."""
        w: Floats = self.weights[rows]
        return w if self.rates is None else w * descendants(self.rates[rows], dt)

    def without(self, time: float) -> Snapshots:
        """The time course as if ``time`` had never been observed."""
        keep = self.time != time
        rates = None if self.rates is None else self.rates[keep]
        weights, condition = self.weights[keep], self.condition[keep]
        return replace(self, x=self.x[keep], time=self.time[keep], weights=weights, condition=condition, rates=rates)


def read_snapshots(
    adata: AnnData,
    time_key: str,
    *,
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    weight_key: str | None = None,
    condition_key: str | None = None,
    growth_key: str | None = None,
) -> Snapshots:
    """Read and check a time course; the AnnData is not changed.

    Parameters
    ----------
    adata
        Cells.
    time_key, time_map
        Times, see `parse_times`.
    use_rep, n_dims
        Coordinates, see `find_representation` and `read_representation`.
    weight_key
        Column of ``obs`` with positive weights.
    condition_key
        Column of ``obs`` with a condition for each cell.
    growth_key
        Column of ``obs`` with growth rates, see `read_rates`.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If the values behind a key cannot be used, or fewer than two times are observed.
    """
    time = parse_times(adata, time_key, time_map)
    x = read_representation(adata, rep := find_representation(adata, use_rep), n_dims)
    times = np.unique(time)
    if len(times) < 2:
        found = f"only the time {times[0]:g}" if len(times) else "no cells"
        raise InputError(f"obs[{time_key!r}] must hold two or more times, found {found}.")
    advise(adata, rep, x, time_key, time)
    weights = np.ones(len(time)) if weight_key is None else read_weights(adata, weight_key)
    condition = np.zeros(len(time), dtype=np.int64)
    conditions: tuple[str, ...] = ()
    if condition_key is not None:
        condition, conditions = _read_conditions(adata, condition_key)
        _check_shared(condition, conditions, time, condition_key, time_key)
    rates = None if growth_key is None else read_rates(adata, growth_key, time, condition)
    return Snapshots(x, time, weights, condition, conditions, rep, rates)


def read_weights(adata: AnnData, key: str) -> Floats:
    """Weights of the cells from ``obs[key]``, shape ``(n_cells,)``.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    InputError
        If a weight is missing, infinite, zero or negative.
    """
    column = pd.to_numeric(obs_column(adata, key, "weight_key"), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(column) & (column > 0))
    if bad.any():
        raise InputError(f"obs[{key!r}] must hold positive finite weights; {int(bad.sum())} of {len(bad)} are not.")
    return column


def read_rates(adata: AnnData, key: str, time: Floats, condition: NDArray[np.int64] | None = None) -> Floats:
    """Growth rates of the cells per unit of time from ``obs[key]``, shape ``(n_cells,)``.

    Cells of the last time (of their condition) may lack one, as nothing shows their growth; they count as 0.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    InputError
        If another cell has none, or an infinite one.
    """
    column = pd.to_numeric(obs_column(adata, key, "growth_key"), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    last = pd.Series(time).groupby(np.zeros(len(time), int) if condition is None else condition).transform("max")
    bad = ~np.isfinite(column) & ((time < last.to_numpy()) | ~np.isnan(column))
    if bad.any():
        raise InputError(
            f"obs[{key!r}] must hold a finite growth rate for each cell before the last time; {int(bad.sum())} of "
            f"{len(bad)} have none. Run tw.pp.growth for these times."
        )
    return np.nan_to_num(column, nan=0.0)


def descendants(rate: Floats, dt: float | Floats) -> Floats:
    """Descendants of a cell after ``dt`` at a constant rate, ``exp(rate dt)``.

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


def _read_conditions(adata: AnnData, key: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    column = obs_column(adata, key, "condition_key")
    if column.isna().any():
        raise InputError(f"obs[{key!r}] has {int(column.isna().sum())} missing values; every cell needs a condition.")
    codes, labels = pd.factorize(column.astype(str), sort=True)
    return codes.astype(np.int64), tuple(labels)


def _check_shared(
    condition: NDArray[np.int64], conditions: tuple[str, ...], time: Floats, condition_key: str, time_key: str
) -> None:
    """Refuse conditions none of which was observed twice: cells are coupled within a condition only."""
    if not any(len(np.unique(time[condition == k])) > 1 for k in range(len(conditions))):
        raise InputError(
            f"each of the {len(conditions)} conditions in obs[{condition_key!r}] occurs at one time of "
            f"obs[{time_key!r}] only, so no cells can be coupled within a condition. If it is a batch of each day, "
            "leave condition_key out; batch and time cannot be told apart then."
        )
