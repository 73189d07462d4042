"""References beside every score: predictions without a network, and how far apart two samples of the truth are.

Like the methods they are made within each condition, by its own neighbouring times, and by the weights of the cells.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from thalweg._settings import settings
from thalweg.core.fresh import shuffled
from thalweg.core.ot.exact import solve_exact
from thalweg.flows.evaluate import COLUMNS, REFERENCES, compare, score
from thalweg.flows.folds import Fold
from thalweg.flows.score_rows import Row, Unit


def reference_units(time: float, seeds: range) -> list[Unit]:
    """The rows of the references: a floor for each seed, the others once."""
    once = [Unit(name, time, seeds[0]) for name in REFERENCES if name != "floor"]
    return once + [Unit("floor", time, seed) for seed in seeds]


def reference_row(fold: Fold, unit: Unit) -> Row | None:
    """The row of a reference; None where there is none."""
    return _REFERENCES[unit.method](fold, unit.seed)


def _copy_previous(fold: Fold, seed: int) -> Row:
    """The cells of the time before as they are."""
    return score(fold, "copy-previous", seed, [fold.copied], 0.0)


def _ot_midpoint(fold: Fold, seed: int) -> Row:
    """The optimal plan between the neighbouring times of each condition, followed on straight lines."""
    full, axis, points, masses, labels = fold.full, fold.axis.calendar, [], [], []
    for condition, (lo, hi) in fold.ends.items():
        rows, cols, share = full.rows(lo, condition), full.rows(hi, condition), axis.share(lo, fold.time, hi)
        a, b = (None if (w == w[0]).all() else w / w.sum() for w in (full.weights[rows], full.weights[cols]))
        plan = solve_exact(full.x[rows], full.x[cols], a=a, b=b, cost="sqeuclidean", max_memory=settings.max_memory)
        points.append((1 - share) * full.x[rows][plan.rows] + share * full.x[cols][plan.cols])
        masses.append(plan.mass)
        labels.append(np.full(len(plan.mass), condition))
    x, mass, label = (np.concatenate(v) for v in (points, masses, labels))
    return score(fold, "ot-midpoint", seed, [fold.weighted(x, mass, label)], 0.0)


def _floor(fold: Fold, seed: int) -> Row | None:
    """Two disjoint halves of the real cells; None where a single real cell has no two halves."""
    truth = fold.truth
    order = shuffled(truth.stratum, np.random.default_rng(seed))
    half = len(order) // 2
    if not half:
        return None
    one, other = (
        fold.weighted(truth.x[rows], truth.weights[rows], truth.stratum[rows]) for rows in (order[:half], order[half:])
    )
    return compare(fold, "floor", seed, [one], other, 0.0)


def _floor_corrected(fold: Fold, seed: int) -> Row | None:
    """A fresh sample of the time, of as many cells; None where there are too few to tell."""
    w1 = fold.scale.fresh
    if np.isnan(w1):
        return None
    row: Row = dict.fromkeys(COLUMNS, np.nan) | {"method": "floor-corrected", "time": fold.time, "seed": seed}
    share = 1.0 if fold.scale.moves else np.nan
    return row | {"w1": w1, "w1_both_ends": w1, "share": share, "fit_seconds": 0.0}


def _floor_replicates(fold: Fold, seed: int) -> Row | None:
    """How far apart two replicates of one condition are, a mean over all pairs; None where there are none."""
    truth, rows = fold.truth, []
    for condition in fold.ends:
        parts = truth.replicates(truth.rows(fold.time, condition))
        clouds = [(truth.x[of], truth.weights[of]) for of in parts]
        rows += [compare(fold, "floor-replicates", seed, [one], other, 0.0) for one, other in combinations(clouds, 2)]
    if not rows:
        return None
    figures = ("w1", "w1_both_ends", "energy_distance", "variance_ratio")
    return rows[0] | {name: float(np.mean([row[name] for row in rows])) for name in figures}


_REFERENCES: dict[str, Callable[[Fold, int], Row | None]] = dict(
    zip(REFERENCES, (_copy_previous, _ot_midpoint, _floor, _floor_corrected, _floor_replicates), strict=True)
)
