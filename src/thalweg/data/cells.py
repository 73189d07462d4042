"""The cells of a time course as arrays, and the one function that reads them from an AnnData."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from thalweg.data.design import read_design
from thalweg.data.rates import offspring, read_deaths, read_rates, read_weights
from thalweg.data.recipe import Recipe
from thalweg.data.remarks import remark_on
from thalweg.data.replicates import FEWEST, read_replicates, remark_on_replicates
from thalweg.data.representation import find_representation, read_representation
from thalweg.data.times import parse_times
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_NEARLY_NONE, _LIGHTEST = 0.04, 1e-6  # of two replicates one has nearly all; no weight is zero


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
        Index into ``conditions`` for each cell, shape ``(n,)``; all zero without a condition. The field is conditioned
        on it.
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
    replicate_names
        Names of the replicates.
    within
        Number of the stratum of each cell, shape ``(n,)``: cells are coupled within a stratum only. None where the
        conditions are the strata.
    withins
        Names of the strata; empty where the conditions are the strata.
    starts
        With a baseline, the time from which each stratum has cells of its own.
    origin
        Row of the AnnData of each cell, shape ``(n,)``, where some cells stand in several conditions
        by a baseline; None where each stands in one, in the order of the AnnData.
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
    replicate_names: tuple[str, ...] = ()
    within: Rows | None = None
    withins: tuple[str, ...] = ()
    starts: tuple[float, ...] = ()
    origin: Rows | None = None

    @cached_property
    def times(self) -> Floats:
        """The observed times, ascending."""
        return np.unique(self.time)

    @property
    def n_dims(self) -> int:
        """Number of coordinates."""
        return self.x.shape[1]

    @property
    def stratum(self) -> Rows:
        """Number of the stratum of each cell, shape ``(n,)``; all zero where the course is one."""
        return self.condition if self.within is None else self.within

    @property
    def stratum_names(self) -> tuple[str, ...]:
        """Names of the strata; empty where the course is one."""
        return self.conditions if self.within is None else self.withins

    @property
    def strata(self) -> list[int]:
        """Numbers of the strata that have cells; ``[0]`` where the course is one."""
        return np.unique(self.stratum).tolist() if self.stratum_names else [0][: len(self.x)]

    def condition_of(self, stratum: int) -> int:
        """Number of the condition that a stratum is a part of."""
        return stratum if self.within is None else int(self.condition[self.within == stratum][0])

    def times_of(self, stratum: int) -> Floats:
        """The times at which a stratum was observed, ascending."""
        return np.unique(self.time[self.stratum == stratum]) if self.stratum_names else self.times

    def rows(self, time: float, stratum: int | None = None) -> Rows:
        """Rows of the cells observed at ``time`` (and in a stratum), in their order."""
        keep = self.time == time
        if stratum is not None:
            keep &= self.stratum == stratum
        return np.flatnonzero(keep)

    def labels(self, rows: Rows) -> Rows | None:
        """Conditions of some rows as a flow takes them: None without a condition."""
        return self.condition[rows] if self.conditions else None

    def of(self, stratum: int) -> str:
        """Words that name a stratum in a message; none where the course is one."""
        what = "condition" if self.within is None else "stratum"
        return f" of {what} {self.stratum_names[stratum]!r}" if self.stratum_names else ""

    def populations(self) -> dict[str, Floats]:
        """The weights of the cells of each time (and stratum), by the words for it."""
        return {where: self.weights[rows] for where, rows in self._populations().items()}

    def _populations(self) -> dict[str, Rows]:
        """The rows of the cells of each time (and stratum), by the words for it."""
        return {
            f"time {t:g}{self.of(stratum)}": self.rows(t, stratum)
            for stratum in self.strata
            for t in self.times_of(stratum).tolist()
        }

    def remark_on_replicates(self) -> None:
        """Say what is odd about the replicates, where they were named."""
        if self.replicate is not None:
            of = {where: self.replicate[rows] for where, rows in self._populations().items()}
            remark_on_replicates(of, self.replicate_names)

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

    @cached_property
    def sources(self) -> Rows:
        """Row of the AnnData of each cell, shape ``(n,)``."""
        return np.arange(len(self.x)) if self.origin is None else self.origin

    def merged(self, values: Floats, condition: int | None = None) -> Floats:
        """Values of the cells of a course, shape ``(n, ...)``, as values of the rows of the AnnData.

        A row that stands in several conditions gets the mean over them, or that of the ``condition``; NaN does not
        count.
        """
        if self.origin is None:
            return values
        flat = values.reshape(len(values), -1)
        known = ~np.isnan(flat)
        if condition is not None:
            several = np.bincount(self.origin)[self.origin] > 1
            there = np.bincount(self.origin, self.condition == condition)[self.origin] > 0
            known &= ~(several & there & (self.condition != condition))[:, None]
        spread = sparse.csr_matrix((np.ones(len(flat)), (self.origin, np.arange(len(flat)))))
        with np.errstate(invalid="ignore"):
            out = (spread @ np.where(known, flat, 0.0)) / (spread @ known.astype(np.float64))
        return np.asarray(out).reshape(-1, *values.shape[1:])

    def standing_for(self, rows: Rows) -> Rows:
        """The cells of the course that rows of the AnnData stand for, one or several each."""
        return rows if self.origin is None else np.flatnonzero(np.isin(self.origin, rows))

    def take(self, rows: Rows | NDArray[np.bool_]) -> Cells:
        """Some of the cells, by rows or by a mask."""
        columns = (
            "x",
            "time",
            "weights",
            "condition",
            "rates",
            "deaths",
            "lost",
            "arrived",
            "replicate",
            "within",
            "origin",
        )
        kept = {name: getattr(self, name)[rows] for name in columns if getattr(self, name) is not None}
        return replace(self, **kept)

    def resampled(self, rng: np.random.Generator) -> Cells:
        """Cells of each time and stratum, drawn from them with replacement (the bootstrap).

        Where a population has two `replicates` or more, whole ones are drawn, one less than there are: so their means
        scatter as those of other experiments would (Rao and Wu 1988), while as many as there are would scatter by 2/3
        of that variance with three. Else cells are drawn, as many as there are. A cell that stands in several
        conditions is drawn in all of them.
        """
        _, first, place = np.unique(self.sources, return_index=True, return_inverse=True)
        drawn = np.concatenate([self._drawn(rows, rng) for rows in self._own_populations()])
        if self.origin is not None:
            times = np.bincount(place[drawn], minlength=len(first))[place]
            drawn = np.repeat(np.arange(len(self.x)), times)
        return self.take(np.sort(drawn))

    def reweighted(self, rng: np.random.Generator) -> Cells:
        """The cells, each with an exponential weight more (the Bayesian bootstrap, Rubin 1981).

        Where a population has two `replicates` or more, each of these gets one weight instead. ``n`` of them share by a
        Dirichlet distribution of parameters ``1 - 2 / n``, by which means scatter as those of other experiments would.
        """
        draw = rng.standard_exponential(int(self.sources.max(initial=-1)) + 1)
        for rows in self._own_populations() if self.replicate is not None else ():
            parts = self.replicates(rows)
            if len(parts) < 2:
                continue
            shape = max(len(parts) - 2, _NEARLY_NONE) / len(parts)
            drawn = rng.standard_gamma(shape, len(parts))
            drawn = np.clip(drawn / drawn.sum(), _LIGHTEST, None)
            draw[self.sources[rows]] = 1.0
            for part, weight in zip(parts, drawn * len(parts) / drawn.sum(), strict=True):
                draw[self.sources[part]] = weight
        return replace(self, weights=self.weights * draw[self.sources])

    def _own_populations(self) -> list[Rows]:
        """The rows of each time and stratum; of a cell that stands in several strata the first alone."""
        own = np.zeros(len(self.x), dtype=bool)
        own[np.unique(self.sources, return_index=True)[1]] = True
        found = [rows[own[rows]] for rows in self._populations().values()]
        return [rows for rows in found if len(rows)]

    def _drawn(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """A bootstrap sample of the cells of one population."""
        parts = self.replicates(rows)
        if len(parts) < 2:
            return rng.choice(rows, len(rows))
        return np.concatenate([parts[i] for i in rng.choice(len(parts), len(parts) - 1)])

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
    design = read_design(adata, recipe, time, remark=remark)
    stratum, rows = design.condition if design.stratum is None else design.stratum, design.origin
    rates = None if recipe.growth_key is None else read_rates(adata, recipe.growth_key, time[rows], stratum, rows)
    deaths = None if recipe.death_key is None else read_deaths(adata, recipe, time[rows], stratum, rows)
    if rates is not None and deaths is not None:
        rates = rates - deaths
    replicate, names = (None, ()) if recipe.replicate_key is None else read_replicates(adata, recipe.replicate_key)
    shared = len(rows) > len(time)
    if shared:
        x, time, weights = x[rows], time[rows], weights[rows]
        replicate = None if replicate is None else replicate[rows]
    return Cells(
        x, time, weights, design.condition, design.conditions, rep, rates, deaths, replicate=replicate,
        replicate_names=names, within=design.stratum, withins=design.strata, starts=design.starts,
        origin=rows if shared else None,
    )  # fmt: skip


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
            f"each of the {len(cells.stratum_names)} conditions in {recipe.where} occurs at one time of "
            f"obs[{key!r}] only, so no cells can be coupled within a condition. If one of them is an untreated "
            "baseline that all share, name it: baseline=. If it is a batch of each day, leave condition_key out; batch "
            "and time cannot be told apart then."
        )
    n = adata.n_obs
    remark_on(adata, cells.use_rep, cells.x[:n], key, cells.time[:n], cells.populations())
    cells.remark_on_replicates()
    return cells
