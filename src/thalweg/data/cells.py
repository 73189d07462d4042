"""The cells of a time course as arrays, and the one function that reads them from an AnnData."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.recipe import Recipe
from thalweg.data.remarks import remark_on
from thalweg.data.representation import find_representation, read_representation
from thalweg.data.times import obs_column, parse_times
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
FEWEST = 10
"""Cells of a replicate from which it counts as one."""


@dataclass(frozen=True)
class Cells:
    """Cells observed at one or more times, checked.

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
    deaths
        Death rate of each cell per unit of time, shape ``(n,)``, where births and deaths were given apart.
    lost
        Share of each cell that dies before the next time without moving, shape ``(n,)``; None where none does.
    arrived
        Share of each cell that has no ancestor at the time before, shape ``(n,)``; None where all have one.
    replicate
        Number of the replicate of each cell, shape ``(n,)``; None where replicates were not named.
    """

    x: Floats
    time: Floats
    weights: Floats
    condition: Rows
    conditions: tuple[str, ...] = ()
    use_rep: str = ""
    rates: Floats | None = None
    deaths: Floats | None = None
    lost: Floats | None = None
    arrived: Floats | None = None
    replicate: Rows | None = None

    @cached_property
    def times(self) -> Floats:
        """The observed times, ascending."""
        return np.unique(self.time)

    @property
    def n_dims(self) -> int:
        """Number of coordinates."""
        return self.x.shape[1]

    @property
    def strata(self) -> list[int]:
        """Numbers of the conditions that have cells; ``[0]`` without a condition."""
        return np.unique(self.condition).tolist() if self.conditions else [0][: len(self.x)]

    def times_of(self, condition: int) -> Floats:
        """The times at which a condition was observed, ascending."""
        return np.unique(self.time[self.condition == condition]) if self.conditions else self.times

    def rows(self, time: float, condition: int | None = None) -> Rows:
        """Rows of the cells observed at ``time`` (and in a condition), in their order."""
        keep = self.time == time
        if condition is not None:
            keep &= self.condition == condition
        return np.flatnonzero(keep)

    def labels(self, rows: Rows) -> Rows | None:
        """Conditions of some rows as a flow takes them: None without a condition."""
        return self.condition[rows] if self.conditions else None

    def populations(self) -> dict[str, Floats]:
        """The weights of the cells of each time (and condition), by the words for it."""
        out = {}
        for condition in self.strata:
            of = f" of condition {self.conditions[condition]!r}" if self.conditions else ""
            for t in self.times_of(condition).tolist():
                out[f"time {t:g}{of}"] = self.weights[self.rows(t, condition)]
        return out

    def at(self, time: float) -> Floats:
        """Coordinates of the cells observed at ``time``."""
        return self.x[self.time == time]

    def grown(self, rows: Rows, dt: float) -> Floats:
        """Weights of some cells after ``dt``: each times its offspring, less what dies in place."""
        w: Floats = self.weights[rows] if self.lost is None else self.weights[rows] * (1 - self.lost[rows])
        return w if self.rates is None else w * offspring(self.rates[rows], dt)

    def descended(self, rows: Rows) -> Floats:
        """Weights of some cells as far as they have ancestors at the time before."""
        w: Floats = self.weights[rows]
        return w if self.arrived is None else w * (1 - self.arrived[rows])

    def take(self, rows: Rows | NDArray[np.bool_]) -> Cells:
        """Some of the cells, by rows or by a mask."""
        columns = ("x", "time", "weights", "condition", "rates", "deaths", "lost", "arrived", "replicate")
        kept = {name: getattr(self, name)[rows] for name in columns if getattr(self, name) is not None}
        return replace(self, **kept)

    def resampled(self, rng: np.random.Generator) -> Cells:
        """Cells of each time and condition, drawn from them with replacement (the bootstrap).

        Where a population has two `replicates` or more, whole ones are drawn; else cells, as many as there are.
        """
        groups = [self.rows(t, c) for c in self.strata for t in self.times_of(c).tolist()]
        return self.take(np.sort(np.concatenate([self._drawn(rows, rng) for rows in groups])))

    def _drawn(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """A bootstrap sample of the cells of one population."""
        parts = self.replicates(rows)
        if len(parts) < 2:
            return rng.choice(rows, len(rows))
        return np.concatenate([parts[i] for i in rng.choice(len(parts), len(parts))])

    def replicates(self, rows: Rows) -> list[Rows]:
        """The replicates of a population that have `FEWEST` cells or more, as rows; none where they were not named."""
        if self.replicate is None:
            return []
        of = self.replicate[rows]
        parts = [rows[of == r] for r in np.unique(of)]
        return [part for part in parts if len(part) >= FEWEST]

    def without(self, time: float) -> Cells:
        """The cells as if ``time`` had never been observed."""
        return self.take(self.time != time)


def read_cells(adata: AnnData, recipe: Recipe, *, remark: bool = False) -> Cells:
    """Read and check the cells of an AnnData, which is not changed.

    Parameters
    ----------
    adata
        Cells.
    recipe
        Columns to read.
    remark
        Log how text was read as times.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If the values behind a key cannot be used, or a condition is unknown to the recipe.
    MemoryBudgetError
        If the coordinates would exceed ``thalweg.settings.max_memory``.
    """
    time = parse_times(adata, recipe.time_key, recipe.time_map, remark=remark)
    x = read_representation(adata, rep := find_representation(adata, recipe.use_rep), recipe.n_dims)
    weights = np.ones(len(time)) if recipe.weight_key is None else read_weights(adata, recipe.weight_key)
    condition, conditions = _read_conditions(adata, recipe)
    rates = None if recipe.growth_key is None else read_rates(adata, recipe.growth_key, time, condition)
    deaths = None if recipe.death_key is None else read_deaths(adata, recipe, time, condition)
    if rates is not None and deaths is not None:
        rates = rates - deaths
    replicate = None if recipe.replicate_key is None else _read_replicates(adata, recipe.replicate_key)
    return Cells(x, time, weights, condition, conditions, rep, rates, deaths, replicate=replicate)


def read_course(adata: AnnData, recipe: Recipe) -> Cells:
    """Read cells to learn from: `read_cells` with the checks and remarks that a time course calls for.

    Raises
    ------
    InputError
        If fewer than two times are observed, or no condition is observed twice.
    """
    cells, key = read_cells(adata, recipe, remark=True), recipe.time_key
    if len(cells.times) < 2:
        found = f"only the time {cells.times[0]:g}" if len(cells.times) else "no cells"
        raise InputError(f"obs[{key!r}] must hold two or more times, found {found}.")
    if not any(len(cells.times_of(c)) > 1 for c in cells.strata):  # cells are coupled within a condition only
        raise InputError(
            f"each of the {len(cells.conditions)} conditions in obs[{recipe.condition_key!r}] occurs at one time of "
            f"obs[{key!r}] only, so no cells can be coupled within a condition. If it is a batch of each day, "
            "leave condition_key out; batch and time cannot be told apart then."
        )
    remark_on(adata, cells.use_rep, cells.x, key, cells.time, cells.populations())
    return cells


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


def read_deaths(adata: AnnData, recipe: Recipe, time: Floats, condition: Rows) -> Floats:
    """Death rates of the cells per unit of time, shape ``(n_cells,)``; ``growth_key`` then holds birth rates.

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
    deaths = read_rates(adata, key, time, condition, "death_key")
    for name, rates in ((recipe.growth_key, read_rates(adata, recipe.growth_key, time, condition)), (key, deaths)):
        if (rates < 0).any():
            raise InputError(
                f"obs[{name!r}] has {int((rates < 0).sum())} negative rates; beside death_key both columns hold rates "
                "of 0 or more, of births in growth_key and of deaths in death_key."
            )
    return deaths


def read_rates(
    adata: AnnData, key: str, time: Floats, condition: Rows | None = None, argument: str = "growth_key"
) -> Floats:
    """Growth rates of the cells per unit of time from ``obs[key]``, shape ``(n_cells,)``.

    Cells of the last time (of their condition) may lack one, as nothing shows their growth; they count as 0.

    Raises
    ------
    MissingKeyError
        If there is no such column.
    InputError
        If another cell has none, or an infinite one.
    """
    column = _numbers(adata, key, argument)
    last = pd.Series(time).groupby(np.zeros(len(time), int) if condition is None else condition).transform("max")
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


def _read_conditions(adata: AnnData, recipe: Recipe) -> tuple[Rows, tuple[str, ...]]:
    key = recipe.condition_key
    if key is None:
        return np.zeros(adata.n_obs, dtype=np.int64), ()
    column = obs_column(adata, key, "condition_key")
    if column.isna().any():
        raise InputError(f"obs[{key!r}] has {int(column.isna().sum())} missing values; every cell needs a condition.")
    codes, found = pd.factorize(column.astype(str), sort=True)
    known = recipe.conditions or tuple(found)
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise InputError(f"obs[{key!r}] holds {unknown}, unknown to the fit; it knows {list(known)}.")
    numbers = np.array([known.index(name) for name in found], dtype=np.int64)
    return numbers[codes], known


def _read_replicates(adata: AnnData, key: str) -> Rows:
    column = obs_column(adata, key, "replicate_key")
    if column.isna().any():
        raise InputError(
            f"obs[{key!r}] has {int(column.isna().sum())} missing values; every cell needs a replicate. Leave those "
            "cells out, or give them a name of their own."
        )
    codes: Rows = pd.factorize(column.astype(str), sort=True)[0].astype(np.int64)
    return codes
