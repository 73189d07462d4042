"""Held-out times: what is trained on, what the truth is, and what a score at that time is measured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger, settings
from thalweg.core import distances
from thalweg.core.fresh import fresh_distance
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError
from thalweg.flows.carry import Cloud
from thalweg.flows.clock import course_axis
from thalweg.flows.coupling import PlanCache
from thalweg.flows.growth import rates_from_plans
from thalweg.flows.share import Scale
from thalweg.flows.time_axis import Spacing, TimeAxis, make_axis

Floats = NDArray[np.float64]
Weighted: TypeAlias = tuple[Floats, Floats]
"""Coordinates of cells, shape ``(n, d)``, and their weights, shape ``(n,)``."""


@dataclass(frozen=True)
class Fold:
    """One held-out time: what is trained on, where it is carried, and what the truth is.

    The truth is the cells of the time, of the conditions that were observed before and after it: of others nothing can
    be predicted. A prediction counts for the same conditions, each with the share that it has in the truth.

    Attributes
    ----------
    full
        All cells.
    time
        The held-out time.
    spacing
        Of the fit without it.
    relaxation
        Compute growth rates from unbalanced plans of the training cells, with this relaxation; None keeps those read.
    plans
        Plans already computed, which the seeds of a fold share.
    """

    full: Cells
    time: float
    spacing: Spacing
    relaxation: float | None = None
    plans: PlanCache = field(default_factory=dict)

    @cached_property
    def train(self) -> Cells:
        """The cells of the other times; growth rates that come from plans have not seen the held-out one."""
        cells = self.full.without(self.time)
        if self.relaxation is None:
            return cells
        return replace(cells, rates=np.nan_to_num(rates_from_plans(cells, self.relaxation)[0]))

    @cached_property
    def axis(self) -> TimeAxis:
        """Time axis of the fit, which has not seen the held-out time."""
        return course_axis(self.train, self.spacing)

    @cached_property
    def ends(self) -> dict[int, tuple[float, float]]:
        """For each condition of the truth the observed times before and after."""
        found = {}
        for condition in np.unique(self.full.stratum[self.full.rows(self.time)]).tolist():
            times = self.full.times_of(condition)
            before, after = times[times < self.time], times[times > self.time]
            if len(before) and len(after):
                found[condition] = (float(before[-1]), float(after[0]))
            else:
                logger.warning(
                    "condition %r has no observed time on one side of %g; it is left out of the scores there",
                    self.full.stratum_names[condition],
                    self.time,
                )
        return found

    @cached_property
    def truth(self) -> Cells:
        """The cells held out, of the conditions that can be predicted.

        Raises
        ------
        InputError
            If there are none.
        """
        rows = self.full.rows(self.time)
        rows = rows[np.isin(self.full.stratum[rows], list(self.ends))]
        if not len(rows):
            raise InputError(f"no condition of time {self.time:g} was observed both before and after it.")
        _, first = np.unique(self.full.sources[rows], return_index=True)  # a cell of several conditions counts once
        return self.full.take(rows[np.sort(first)])

    @cached_property
    def stands_for(self) -> Rows:
        """For each stratum the one that it counts as in the truth: the first of those that share their cells."""
        out = np.arange(max(1, len(self.full.stratum_names)))
        first: dict[int, int] = {}
        for condition in self.ends:
            rows = self.full.rows(self.time, condition)
            out[condition] = first.setdefault(int(self.full.sources[rows[0]]), condition)
        return out

    @cached_property
    def copied(self) -> Weighted:
        """The cells of the time before, as they are."""
        full = self.full
        rows = np.sort(np.concatenate([full.rows(before, c) for c, (before, _) in self.ends.items()]))
        return self.weighted(full.x[rows], full.weights[rows], full.stratum[rows])

    @cached_property
    def scale(self) -> Scale:
        """What the scores at this time are measured by."""
        (x, a), (y, b), limit = self.copied, (self.truth.x, self.truth.weights), settings.max_memory
        copy, by_cell = distances.wasserstein_shares(x, y, a=unless_equal(a), b=unless_equal(b), max_memory=limit)
        rng, of = np.random.default_rng(0), self.truth.stratum
        fresh = fresh_distance(y, unless_equal(b), rng=rng, strata=of, max_memory=limit)
        return Scale(copy, by_cell, *fresh, b / b.sum(), self._replicates())

    def _replicates(self) -> list[list[Rows]] | None:
        """The rows of the truth that are each replicate, for each condition; None where replicates were not named."""
        of, stratum = self.truth.replicate, self.truth.stratum
        if of is None:
            return None
        own = [np.flatnonzero(stratum == condition) for condition in np.unique(stratum)]
        return [[rows[of[rows] == r] for r in np.unique(of[rows])] for rows in own]

    def judged(self, cloud: Cloud) -> Weighted:
        """What counts of a prediction: the cells of conditions in the truth, each condition with its share of it."""
        return self.weighted(cloud.x, cloud.weight, self.train.stratum[cloud.rows])

    def weighted(self, x: Floats, weights: Floats, labels: Rows) -> Weighted:
        """The same for coordinates, weights and conditions of cells."""
        if not self.full.stratum_names:
            return x, weights
        weights = self._shares(np.where(np.isin(labels, list(self.ends)), self.stands_for[labels], -1), weights)
        return x[weights > 0], weights[weights > 0]

    def _shares(self, labels: Rows, weights: Floats) -> Floats:
        """Weights of predicted cells by which each condition has its share of the truth; zero for other conditions."""
        out = np.zeros(len(labels))
        for condition in self.ends:
            own = labels == condition
            if own.any():
                share = self.truth.weights[self.truth.stratum == condition].sum() / self.truth.weights.sum()
                out[own] = weights[own] * (share / weights[own].sum())
        return out


def make_folds(cells: Cells, times: Sequence[float], spacing: Spacing, relaxation: float | None = None) -> list[Fold]:
    """A fold for each time; under index spacing that time keeps its number in the full course."""
    observed = cells.times
    if spacing == "index":
        spacing = {t: float(i) for i, t in enumerate(observed.tolist())}
    for t in times:
        kept = observed[observed != t]
        make_axis(kept, spacing, partial(np.ones, len(kept) - 1))  # refuses a bad spacing before any fit
    return [Fold(cells, t, spacing, relaxation) for t in times]


def unless_equal(weights: Floats) -> Floats | None:
    """None for equal weights, which are faster, and exact."""
    return None if (weights == weights[0]).all() else weights
