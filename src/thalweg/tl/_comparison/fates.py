"""Fates of the first cells of each replicate, each by a fit of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from thalweg._settings import settings
from thalweg.data.cells import Floats, Rows
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.refit import refit
from thalweg.flows.running import Integrator
from thalweg.flows.store import Stored
from thalweg.tl._comparison.tables import Shares, shares_table, with_q
from thalweg.tl._comparison.units import Arms, Unit, fitted_units
from thalweg.tl._fates.futures import Fates
from thalweg.tl._fates.plans import PlanFates

_SAMPLES, _STEPS = 20, 25  # futures of a cell under an SDE, and steps of each in an interval


@dataclass(frozen=True)
class UnitFates:
    """Makes the table of fates of two arms.

    Attributes
    ----------
    stored
        The fit, whose method every unit is fitted by.
    codes
        Group of each cell of the course, -1 for none.
    groups
        Names of the groups.
    n_neighbors, bandwidth
        As in `thalweg.tl.fate`.
    rng
        Source of the fits.
    """

    stored: Stored
    codes: Rows
    groups: Sequence[str]
    n_neighbors: int
    bandwidth: float | None
    rng: np.random.Generator

    def __call__(self, arms: Arms, names: NDArray[np.str_]) -> pd.DataFrame:
        """A row for each fate. ``names`` are those of the replicates."""
        cells = arms.cells
        ends = [np.flatnonzero((cells.condition == c) & (cells.time == cells.time[cells.condition == c].max()))
                for c in (arms.reference, arms.other)]  # fmt: skip
        terminal = np.unique(self.codes[np.concatenate(ends)])
        terminal = terminal[terminal >= 0]
        number = np.full(len(self.groups) + 1, -1)
        number[terminal] = np.arange(len(terminal))
        fitted, counts, totals = fitted_units(arms, names), [], []
        for i in tqdm(fitted, desc="replicates", disable=not settings.progress):
            share, n = self._of(arms, arms.units[i], number[self.codes], len(terminal))
            counts.append(share * n)
            totals.append(n)
        found = Shares(np.stack(counts), np.array(totals, dtype=np.float64), arms.arm[fitted])
        return with_q(shares_table(found, [self.groups[k] for k in terminal.tolist()]))

    def _of(self, arms: Arms, unit: Unit, codes: Rows, n_groups: int) -> tuple[Floats, int]:
        """Share of the first cells of a unit that each fate has, and how many cells these are."""
        course, codes = arms.course(unit), codes[unit.course]
        flow, alive = refit(self.stored, course, self.rng)
        ends = codes, n_groups, self.n_neighbors, self.bandwidth, ()
        if self.stored.method.bridged:
            p = PlanFates(flow, alive, *ends, self.stored.counted)().p
        else:
            noise = make_noise(flow, None, self.rng)
            carrier = Carrier(flow, alive, noise, Integrator(n_steps=_STEPS))
            p = Fates(carrier, _SAMPLES if noise else 1, *ends)().p
        first = np.flatnonzero(course.time == course.time.min())
        weights = course.weights[first]
        share: Floats = weights @ p[first] / weights.sum()
        return share / share.sum(), len(first)
