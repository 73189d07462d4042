"""The units of a comparison: the replicates of each arm, which differ by chance, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.cells import Cells, Floats, Rows
from thalweg.errors import InputError


@dataclass(frozen=True)
class Unit:
    """A replicate of an arm.

    Attributes
    ----------
    condition
        Number of the arm.
    replicate
        Number of the replicate.
    own
        Rows of its cells, but those of a shared baseline.
    course
        Rows of the cells that it is fitted to: its own, and of the shared baseline those of the replicate, or all where
        it has none there.
    """

    condition: int
    replicate: int
    own: Rows
    course: Rows


@dataclass(frozen=True)
class Arms:
    """Two arms and their units.

    Attributes
    ----------
    cells
        The course.
    reference, other
        Numbers of the arms.
    units
        Their replicates.
    """

    cells: Cells
    reference: int
    other: int
    units: tuple[Unit, ...]

    @cached_property
    def arm(self) -> NDArray[np.int64]:
        """Of each unit: 0 for the reference, 1 for the other arm."""
        return np.array([int(unit.condition == self.other) for unit in self.units])

    @cached_property
    def times(self) -> Floats:
        """The times at which both arms have cells of their own."""
        return np.intersect1d(self.own_times(self.reference), self.own_times(self.other))

    def own_times(self, condition: int) -> Floats:
        """The times at which an arm has cells of its own."""
        return np.unique(np.concatenate([self.cells.time[u.own] for u in self.units if u.condition == condition]))

    def name(self, unit: Unit) -> str:
        """Name of the replicate of a unit."""
        return self.cells.replicate_names[unit.replicate] if self.cells.replicate_names else "all"

    def last_cells(self) -> Rows:
        """The cells of the last time at which both arms have some: there fates end, so that they can be compared."""
        of = np.isin(self.cells.condition, (self.reference, self.other))
        return np.flatnonzero(of & (self.cells.time == self.times[-1]))

    def at(self, unit: Unit, time: float) -> Rows:
        """The own cells of a unit at a time."""
        return unit.own[self.cells.time[unit.own] == time]

    def present(self, time: float) -> list[int]:
        """Places of the units that have cells of their own at a time."""
        return [i for i, unit in enumerate(self.units) if len(self.at(unit, time))]

    def moved(self, values: Callable[[Rows], Any], times: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Mean of ``values`` of the cells of each unit over some times, less that at its own first one, if earlier.

        A shift that a replicate has at all times, such as a batch effect, then cancels. Returns shape ``(n_units, k)``
        and the arm of each unit; units without cells at these times are left out.
        """
        out, arm = [], []
        for unit, side in zip(self.units, self.arm.tolist(), strict=True):
            here = [self.at(unit, t) for t in times.tolist()]
            here = [rows for rows in here if len(rows)]
            if not here:
                continue
            mean = np.mean([self._mean(values, rows) for rows in here], 0)
            first = float(self.cells.time[unit.course].min())
            start = unit.course[self.cells.time[unit.course] == first]
            if first < times.min():
                mean = mean - self._mean(values, start)
            out.append(mean)
            arm.append(side)
        return np.stack(out), np.array(arm)

    def _mean(self, values: Callable[[Rows], Any], rows: Rows) -> Floats:
        weights = self.cells.weights[rows]
        return np.asarray(weights @ values(rows), dtype=np.float64) / weights.sum()  # sparse values stay sparse

    def rows(self, unit: Unit) -> Rows:
        """What a unit is fitted to: its course up to the last time of both arms."""
        return unit.course[self.cells.time[unit.course] <= self.times[-1]]

    def course(self, unit: Unit) -> Cells:
        """The same as a course of one condition."""
        rows = self.rows(unit)
        return replace(
            self.cells.take(rows), condition=np.zeros(len(rows), dtype=np.int64), conditions=(), within=None,
            withins=(), starts=(), origin=None, replicate=None, replicate_names=(),
        )  # fmt: skip


def make_arms(cells: Cells, reference: int, other: int) -> Arms:
    """Two arms with a unit for each replicate.

    Raises
    ------
    InputError
        If the arms were never observed at the same time.
    """
    units = tuple(unit for condition in (reference, other) for unit in _units(cells, condition))
    arms = Arms(cells, reference, other, units)
    if not len(arms.times):
        names = [cells.conditions[condition] for condition in (reference, other)]
        found = [arms.own_times(condition).tolist() for condition in (reference, other)]
        raise InputError(
            f"the conditions {names[0]!r} and {names[1]!r} were never observed at the same time, a shared baseline "
            f"apart, but at {found[0]} and {found[1]}; there is nothing to compare."
        )
    return arms


def _units(cells: Cells, condition: int) -> list[Unit]:
    """The replicates of an arm; a baseline that others share is no replicate by itself."""
    of = np.flatnonzero(cells.condition == condition)
    shared = np.zeros(len(cells.x), dtype=bool)
    if cells.starts:
        start = min(cells.starts[s] for s in cells.strata if cells.condition_of(s) == condition)
        shared[of] = cells.time[of] < start
    label = np.zeros(len(cells.x), dtype=np.int64) if cells.replicate is None else cells.replicate
    out = []
    for replicate in np.unique(label[of[~shared[of]]]).tolist():
        mine = of[label[of] == replicate]
        have = np.unique(cells.time[mine])
        borrowed = of[shared[of] & ~np.isin(cells.time[of], have)]
        out.append(Unit(condition, replicate, mine[~shared[mine]], np.sort(np.concatenate([mine, borrowed]))))
    return out


def fitted_units(arms: Arms) -> list[int]:
    """Places of the units that can have fates: of two times or more, the last one of both arms among them.

    Others are named in a warning.
    """
    out, last = [], arms.times[-1]
    for i, unit in enumerate(arms.units):
        times = np.unique(arms.cells.time[arms.rows(unit)])
        if len(times) > 1 and times[-1] == last:
            out.append(i)
            continue
        logger.warning(
            "replicate %r of condition %r has cells of the times %s only, and fates need two times up to %g: it does "
            "not count among them", arms.name(unit), arms.cells.conditions[unit.condition], times.tolist(), last,
        )  # fmt: skip
    return out
