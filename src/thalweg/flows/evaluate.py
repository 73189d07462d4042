"""Scoring predictions of a time that took no part in them: folds, references, and anything that predicts.

A fold leaves one observed time out. What predicts it is a method of the package, which is fitted to the other times
first; or a predictor, a function of the training cells and a time; the references are predictors, too. Each prediction
is compared with the real cells of the time by `score`.
"""

from __future__ import annotations

import inspect
import time as clock
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from thalweg.core import distances
from thalweg.core.ot.exact import solve_exact
from thalweg.data.cells import Cells
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.config import FitConfig
from thalweg.flows.coupling import PlanCache
from thalweg.flows.fitting import train_flow
from thalweg.flows.methods import Method, find_method
from thalweg.flows.resume import identify_cells
from thalweg.flows.score_rows import Row, Unit
from thalweg.flows.time_axis import Spacing, TimeAxis, make_axis

Floats = NDArray[np.float64]
COLUMNS = ["method", "time", "seed", "w1", "energy_distance", "variance_ratio", "fit_seconds"]
REFERENCES = ("copy-previous", "ot-midpoint", "floor")


@runtime_checkable
class Predictor(Protocol):
    """Anything that predicts a population: ``predictor(cells, time)``.

    ``cells`` are the training cells (`thalweg.data.cells.Cells`: coordinates ``x`` of shape ``(n, d)``, ``time``,
    ``weights``, ``condition``), which hold nothing of the time asked for. It returns coordinates of shape ``(m, d)``,
    or these and a weight for each, shape ``(m,)``. One that has a parameter ``rng`` is called once for each seed, with
    a numpy Generator.
    """

    def __call__(self, cells: Cells, time: float, /) -> Any:
        """Predict the population at ``time``."""


Candidate: TypeAlias = Method | Predictor


def candidates(methods: str | Candidate | Sequence[str | Candidate]) -> dict[str, Candidate]:
    """What is to be scored, by the name it has in the table.

    Raises
    ------
    InputError
        If a method is unknown, something is no method and cannot be called, or two have one name.
    """
    given = [methods] if isinstance(methods, str | Method) or callable(methods) else [*methods]
    out: dict[str, Candidate] = {}
    for one in given:
        found = find_method(one) if isinstance(one, str | Method) else one
        if not isinstance(found, Method) and not callable(found):
            raise InputError(f"methods must be names, tw.tl.Method objects or functions, found {one!r}.")
        name = found.name if isinstance(found, Method) else str(getattr(found, "__name__", type(found).__name__))
        if name in REFERENCES or out.get(name, found) is not found:
            raise InputError(f"two rows of the table would be named {name!r}; give each function a name of its own.")
        out[name] = found
    return out


@dataclass(frozen=True)
class Fold:
    """One held-out time: what is trained on, where it is carried, and what the truth is.

    Attributes
    ----------
    full
        All cells.
    time
        The held-out time.
    axis
        Time axis of the fit without it.
    plans
        Plans already computed, which the seeds of a fold share.
    """

    full: Cells
    time: float
    axis: TimeAxis
    plans: PlanCache = field(default_factory=dict)

    @property
    def train(self) -> Cells:
        """The cells of the other times."""
        return self.full.without(self.time)

    @property
    def real(self) -> Floats:
        """Coordinates of the cells held out."""
        return self.full.at(self.time)


def make_folds(cells: Cells, times: Iterable[float], spacing: Spacing) -> list[Fold]:
    """A fold for each time; under index spacing that time keeps its number in the full course."""
    observed = cells.times
    if spacing == "index":
        spacing = {t: float(i) for i, t in enumerate(observed.tolist())}
    return [Fold(cells, t, make_axis(observed[observed != t], spacing)) for t in times]


@dataclass(frozen=True)
class Trial:
    """How methods are fitted and run in a fold.

    Attributes
    ----------
    config, spacing
        Of every fit.
    device
        Where it is fitted.
    stochastic
        Carry cells by the SDE for methods that have a score.
    """

    config: FitConfig
    spacing: Spacing
    device: torch.device
    stochastic: bool | float

    def identity(self, cells: Cells) -> dict[str, Any]:
        """What decides a row besides its method, time and seed."""
        return {
            "cells": identify_cells(cells),
            "spacing": self.spacing if isinstance(self.spacing, str) else sorted(self.spacing.items()),
            "config": asdict(self.config),
            "device": self.device.type,
            "stochastic": self.stochastic,
        }

    def row(self, fold: Fold, name: str, candidate: Candidate, seed: int) -> Row:
        """Predict the time of a fold, and score the prediction."""
        rng = np.random.default_rng(seed)
        if not isinstance(candidate, Method):
            return predicted_row(fold, name, candidate, seed, rng)
        fitted = train_flow(
            fold.train,
            candidate,
            fold.axis,
            self.config,
            rng,
            device=self.device,
            cache=fold.plans,
            description=f"{name}, without {fold.time:g}",
        )
        noise = make_noise(fitted.flow, self.stochastic if candidate.score else False, rng)
        cloud = Carrier(fitted.flow, fold.train, noise).predict(fold.time)
        return score(fold, name, seed, cloud.x, cloud.weight, fitted.seconds)


def predicted_row(fold: Fold, name: str, predictor: Predictor, seed: int, rng: np.random.Generator) -> Row:
    """The row of a predictor, whose answer is checked.

    Raises
    ------
    InputError
        If it returns no finite coordinates of the right number, or weights that are not positive.
    """
    start = clock.perf_counter()
    options = {"rng": rng} if takes_rng(predictor) else {}
    found = predictor(fold.train, fold.time, **options)
    seconds = clock.perf_counter() - start
    x, weights = found if isinstance(found, tuple) else (found, None)
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != fold.full.n_dims or not len(x) or not np.isfinite(x).all():
        raise InputError(
            f"{name} must return finite coordinates of shape (n, {fold.full.n_dims}), found shape {x.shape} "
            f"with {int((~np.isfinite(x)).sum())} NaN or infinite values."
        )
    return score(fold, name, seed, x, weights, seconds)


def takes_rng(predictor: Predictor) -> bool:
    """Whether a predictor draws random numbers, so that every seed has a row of its own."""
    return "rng" in inspect.signature(predictor).parameters


def score(fold: Fold, name: str, seed: int, cloud: Floats, weights: ArrayLike | None, seconds: float) -> Row:
    """Compare a predicted cloud with the real cells of a fold."""
    return _compared(fold, name, seed, cloud, fold.real, weights, seconds)


def _compared(
    fold: Fold, name: str, seed: int, cloud: Floats, real: Floats, weights: ArrayLike | None, seconds: float
) -> Row:
    a = None if weights is None else np.asarray(weights, dtype=np.float64)
    scores = {
        "w1": distances.wasserstein(cloud, real, a=a),
        "energy_distance": distances.energy(cloud, real, a=a),
        "variance_ratio": distances.variance_ratio(cloud, real, a=a),
    }
    return {"method": name, "time": fold.time, "seed": seed, **scores, "fit_seconds": seconds}


# --- references: predictions without a network -------------------------------------------------------------------


def reference_units(time: float, seeds: range) -> list[Unit]:
    """The rows of the references: a floor for each seed, the others once."""
    once = [Unit(name, time, seeds[0]) for name in REFERENCES[:2]]
    return once + [Unit("floor", time, seed) for seed in seeds]


def reference_row(fold: Fold, unit: Unit) -> Row | None:
    """The row of a reference; None where there is none."""
    return _REFERENCES[unit.method](fold, unit.seed)


def _around(fold: Fold) -> tuple[float, float]:
    times = fold.axis.times
    return float(times[times < fold.time][-1]), float(times[times > fold.time][0])


def _copy_previous(fold: Fold, seed: int) -> Row:
    """The cells of the time before as they are."""
    return score(fold, "copy-previous", seed, fold.full.at(_around(fold)[0]), None, 0.0)


def _ot_midpoint(fold: Fold, seed: int) -> Row:
    """The optimal plan between the neighbouring times, followed on straight lines."""
    lo, hi = _around(fold)
    before, after, share = fold.full.at(lo), fold.full.at(hi), fold.axis.share(lo, fold.time, hi)
    plan = solve_exact(before, after, cost="sqeuclidean")
    points = (1 - share) * before[plan.rows] + share * after[plan.cols]
    return score(fold, "ot-midpoint", seed, points, plan.mass, 0.0)


def _floor(fold: Fold, seed: int) -> Row | None:
    """Two disjoint halves of the real cells; None where a single real cell has no two halves."""
    order = np.random.default_rng(seed).permutation(len(fold.real))
    half = len(order) // 2
    if not half:
        return None
    return _compared(fold, "floor", seed, fold.real[order[:half]], fold.real[order[half:]], None, 0.0)


_REFERENCES: dict[str, Callable[[Fold, int], Row | None]] = dict(
    zip(REFERENCES, (_copy_previous, _ot_midpoint, _floor), strict=True)
)
