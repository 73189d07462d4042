"""Scoring predictions of a time that took no part in them: folds, references, and anything that predicts.

A fold leaves one observed time out. What predicts it is a method of the package, which is fitted to the other times
first; or a predictor, a function of the training cells and a time; the references are predictors, too. Each prediction
is compared with the real cells of the time by `score`.
"""

from __future__ import annotations

import inspect
import time as clock
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg._settings import logger, settings
from thalweg.core import distances
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, Cloud, make_noise
from thalweg.flows.clock import course_axis
from thalweg.flows.config import FitConfig
from thalweg.flows.coupling import PlanCache
from thalweg.flows.fitting import train_flow
from thalweg.flows.growth import rates_from_plans
from thalweg.flows.methods import Method, find_method
from thalweg.flows.prediction import mean, sample
from thalweg.flows.resume import identify_cells
from thalweg.flows.score_rows import Row
from thalweg.flows.time_axis import Spacing, TimeAxis, make_axis

Floats = NDArray[np.float64]
Weighted: TypeAlias = tuple[Floats, Floats]
COLUMNS = ["method", "time", "seed", "w1", "w1_both_ends", "energy_distance", "variance_ratio", "fit_seconds"]
REFERENCES = ("copy-previous", "ot-midpoint", "floor")
"""Names of the rows of `thalweg.flows.references`, which no candidate may have."""


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
        for condition in np.unique(self.full.condition[self.full.rows(self.time)]).tolist():
            times = self.full.times_of(condition)
            before, after = times[times < self.time], times[times > self.time]
            if len(before) and len(after):
                found[condition] = (float(before[-1]), float(after[0]))
            else:
                logger.warning(
                    "condition %r has no observed time on one side of %g; it is left out of the scores there",
                    self.full.conditions[condition],
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
        rows = rows[np.isin(self.full.condition[rows], list(self.ends))]
        if not len(rows):
            raise InputError(f"no condition of time {self.time:g} was observed both before and after it.")
        return self.full.take(rows)

    def judged(self, cloud: Cloud) -> Weighted:
        """What counts of a prediction: the cells of conditions in the truth, each condition with its share of it."""
        return self.weighted(cloud.x, cloud.weight, self.train.condition[cloud.rows])

    def weighted(self, x: Floats, weights: Floats, labels: Rows) -> Weighted:
        """The same for coordinates, weights and conditions of cells."""
        if not self.full.conditions:
            return x, weights
        weights = self._shares(labels, weights)
        return x[weights > 0], weights[weights > 0]

    def _shares(self, labels: Rows, weights: Floats) -> Floats:
        """Weights of predicted cells by which each condition has its share of the truth; zero for other conditions."""
        out = np.zeros(len(labels))
        for condition in self.ends:
            own = labels == condition
            if own.any():
                share = self.truth.weights[self.truth.condition == condition].sum() / self.truth.weights.sum()
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
            "columns": COLUMNS,
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
        method, config = candidate, self.config
        if not (self.stochastic and method.bridged):  # the dynamics take no part in a prediction
            config = replace(config, sigma=None) if method.bridged else config
            method = replace(method, dynamics="none")
        fitted = train_flow(
            fold.train,
            method,
            fold.axis,
            config,
            rng,
            device=self.device,
            cache=fold.plans,
            description=f"{name}, without {fold.time:g}",
        )
        flow = fitted.flow.process if self.stochastic else fitted.flow
        noise = make_noise(flow, self.stochastic if flow.has_score else False, rng)
        clouds = _clouds(Carrier(flow, fitted.alive(fold.train), noise), fold.time, rng)
        return score(fold, name, seed, [fold.judged(cloud) for cloud in clouds], fitted.seconds)


def _clouds(carrier: Carrier, time: float, rng: np.random.Generator) -> list[Cloud]:
    """The prediction from one side, from both, and with the noise of the cells."""
    both = carrier.predict(time, both_ends=True)
    noisy = both
    if carrier.noise is None and carrier.flow.has_score:
        carrier_with = replace(carrier, noise=make_noise(carrier.flow, None, rng))
        noisy = carrier_with.predict(time, both_ends=True)
    elif carrier.noise is None:
        noisy = sample(carrier, both, time, rng)
    return [carrier.predict(time), mean(carrier, time), noisy]


def predicted_row(fold: Fold, name: str, predictor: Predictor, seed: int, rng: np.random.Generator) -> Row:
    """The row of a predictor, whose answer is checked.

    Raises
    ------
    InputError
        If it returns no finite coordinates of the right number, or weights that are not one non-negative number for
        each row with a positive sum.
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
    if weights is not None:
        _check_weights(name, np.asarray(weights, dtype=np.float64), len(x))
    return score(fold, name, seed, [(x, np.ones(len(x)) if weights is None else np.asarray(weights, float))], seconds)


def _check_weights(name: str, weights: Floats, n: int) -> None:
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise InputError(
            f"weights of {name} must be {n} non-negative numbers with a positive sum, found shape {weights.shape}; "
            "return the coordinates alone for equal weights."
        )


def takes_rng(predictor: Predictor) -> bool:
    """Whether a predictor draws random numbers, so that every seed has a row of its own."""
    return "rng" in inspect.signature(predictor).parameters


def score(fold: Fold, name: str, seed: int, clouds: Sequence[Weighted], seconds: float) -> Row:
    """Compare predicted clouds with the real cells of a fold.

    Parameters
    ----------
    fold, name, seed, seconds
        Of the row.
    clouds
        Coordinates, shape ``(n, d)``, and weights, shape ``(n,)``: the prediction from one side, from both, and with
        the noise of the cells. A single one counts for all three.
    """
    return compare(fold, name, seed, clouds, (fold.truth.x, fold.truth.weights), seconds)


def compare(fold: Fold, name: str, seed: int, clouds: Sequence[Weighted], real: Weighted, seconds: float) -> Row:
    """The row of predicted clouds, see `score`, and a real one."""
    limit, (y, b) = settings.max_memory, (real[0], _unless_equal(real[1]))

    def w1(cloud: Weighted) -> float:
        return distances.wasserstein(cloud[0], y, a=_unless_equal(cloud[1]), b=b, max_memory=limit)

    (x, a), one = clouds[-1], w1(clouds[0])
    scores = {
        "w1": one,
        "w1_both_ends": w1(clouds[1]) if len(clouds) > 1 else one,
        "energy_distance": distances.energy(x, y, a=_unless_equal(a), b=b, max_memory=limit),
        "variance_ratio": distances.variance_ratio(x, y, a=_unless_equal(a), b=b),
    }
    return {"method": name, "time": fold.time, "seed": seed, **scores, "fit_seconds": seconds}


def _unless_equal(weights: Floats) -> Floats | None:
    """None for equal weights, which are faster, and exact."""
    return None if (weights == weights[0]).all() else weights
