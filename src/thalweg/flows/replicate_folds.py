"""Replicates left out: each is predicted from its own first population by a fit that has not seen it.

The first population of the replicate is carried through all later times by the flow of the others, and compared with
its real cells there. Cells that enter on the way are those of the others, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger, settings
from thalweg.core import distances
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError
from thalweg.flows.clock import course_axis
from thalweg.flows.coupling import PlanCache
from thalweg.flows.evaluate import Trial, other_scores
from thalweg.flows.folds import Weighted, unless_equal
from thalweg.flows.growth import rates_from_plans
from thalweg.flows.methods import Method
from thalweg.flows.score_rows import Row
from thalweg.flows.time_axis import Spacing, TimeAxis

Mask = NDArray[np.bool_]
COLUMNS = ["replicate", "time", "method", "seed", "w1", "energy_distance", "variance_ratio", "fit_seconds"]
REFERENCES = ("copy-first", "other-replicates", "floor")
"""Rows beside each prediction."""


@dataclass(frozen=True)
class ReplicateFold:
    """A replicate left out.

    Attributes
    ----------
    full
        All cells.
    replicate
        Its number.
    spacing
        Of the fit without it.
    relaxation
        Compute growth rates from unbalanced plans without the replicate, with this relaxation; None keeps those read.
    plans
        Plans already computed, which the seeds of a fold share.
    """

    full: Cells
    replicate: int
    spacing: Spacing
    relaxation: float | None = None
    plans: PlanCache = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the replicate."""
        return self.full.replicate_names[self.replicate]

    @cached_property
    def _own(self) -> Mask:
        of = self.full.replicate
        return np.zeros(len(self.full.x), dtype=bool) if of is None else of == self.replicate

    @cached_property
    def own(self) -> Cells:
        """The cells of the replicate."""
        return self.full.take(self._own)

    @cached_property
    def train(self) -> Cells:
        """The cells of the others."""
        return self._with_rates(self.full.take(~self._own))

    @cached_property
    def axis(self) -> TimeAxis:
        """Time axis of the fit."""
        return course_axis(self.train, self.spacing)

    @cached_property
    def later(self) -> dict[int, list[float]]:
        """For each condition the times to be predicted: those after the first one that the others reach, too."""
        found = {}
        for condition in self.own.strata:
            first, *later = self.own.times_of(condition).tolist()
            known = self.train.times_of(condition) if condition in self.train.strata else np.empty(0)
            inside = bool(len(known)) and known[0] <= first
            times = [t for t in later if inside and len(known) > 1 and t <= known[-1]]
            if len(times) < len(later):
                logger.warning(
                    "replicate %r%s is not predicted at the times %s: no other replicate was observed so early, or so "
                    "late", self.name, self.full.of(condition), [t for t in later if t not in times],
                )  # fmt: skip
            if times:
                found[condition] = times
        return found

    def course(self, condition: int) -> Cells:
        """The first population of the replicate, and the other replicates at later times."""
        full, first = self.full, float(self.own.times_of(condition)[0])
        here = full.stratum == condition
        return self._with_rates(full.take(here & np.where(self._own, full.time == first, full.time > first)))

    def _with_rates(self, cells: Cells) -> Cells:
        if self.relaxation is None:
            return cells
        return replace(cells, rates=np.nan_to_num(rates_from_plans(cells, self.relaxation)[0]))

    def rows(self, method: Method, trial: Trial, seed: int) -> Iterator[Row]:
        """Fit a method without the replicate, and score what it predicts at each later time."""
        rng = np.random.default_rng(seed)
        words = f"{method.name}, without replicate {self.name}"
        fitted = trial.fit(self.train, method, self.axis, self.plans, rng, words)
        for condition, times in self.later.items():
            carrier = trial.carrier(fitted, self.course(condition), rng)
            for t, x, weight in carrier.rolled_out(condition, times):
                if t in times:
                    yield self._row(condition, t, method.name, seed, (x, weight)) | {"fit_seconds": fitted.seconds}

    def references(self, seeds: range) -> Iterator[Row]:
        """Rows without a network: a floor for each seed, the others once."""
        for condition, times in self.later.items():
            first = self.own.rows(float(self.own.times_of(condition)[0]), condition)
            for t in times:
                yield self._row(condition, t, "copy-first", seeds[0], _cloud(self.own, first))
                others = self.train.rows(t, condition)
                if len(others):
                    yield self._row(condition, t, "other-replicates", seeds[0], _cloud(self.train, others))
                real = self.own.rows(t, condition)
                for seed in seeds if len(real) > 1 else ():
                    one, other = np.split(np.random.default_rng(seed).permutation(real), [len(real) // 2])
                    yield self._row(condition, t, "floor", seed, _cloud(self.own, one), _cloud(self.own, other))

    def _row(
        self, condition: int, t: float, name: str, seed: int, cloud: Weighted, real: Weighted | None = None
    ) -> Row:
        """Compare a cloud with the real cells of the replicate."""
        truth = _cloud(self.own, self.own.rows(t, condition)) if real is None else real
        (x, a), (y, b) = cloud, truth
        limit = settings.max_memory
        w1 = distances.wasserstein(x, y, p=1, a=unless_equal(a), b=unless_equal(b), max_memory=limit)
        row: Row = {"condition": self.full.stratum_names[condition]} if self.full.stratum_names else {}
        row |= {"replicate": self.name, "time": t, "method": name, "seed": seed, "w1": w1}
        return row | other_scores(cloud, truth) | {"fit_seconds": 0.0}


def replicate_folds(cells: Cells, key: str, spacing: Spacing, relaxation: float | None = None) -> list[ReplicateFold]:
    """A fold for each replicate that can be predicted; those that cannot are named in a warning.

    Raises
    ------
    InputError
        If there are fewer than two replicates, or none can be predicted.
    """
    names = cells.replicate_names
    if len(names) < 2:
        raise InputError(
            f"obs[{key!r}] holds {'one replicate' if names else 'no replicates'} only; leaving one out needs two."
        )
    folds = [ReplicateFold(cells, r, spacing, relaxation) for r in range(len(names))]
    once = [f.name for f in folds if all(len(f.own.times_of(c)) < 2 for c in f.own.strata)]
    if len(once) == len(folds):
        raise InputError(
            f"each replicate of obs[{key!r}] holds one time only, such as {once[0]!r}, so that none has later cells to "
            "be predicted. Give a replicate one name at all its times, if it is one animal, donor or dish that was "
            "sampled again; if each time has animals of its own, see floor-replicates of tw.tl.leave_one_out."
        )
    if once:
        logger.warning("replicates %s hold one time only: they are trained on, and never left out", once)
    kept = [fold for fold in folds if fold.name not in once and fold.later]
    if not kept:
        raise InputError(f"no replicate of obs[{key!r}] has a time that others reach, too, so none can be left out.")
    return kept


def _cloud(cells: Cells, rows: Rows) -> Weighted:
    return cells.x[rows], cells.weights[rows]
