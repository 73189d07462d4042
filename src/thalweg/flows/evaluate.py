"""Scoring predictions of a time that took no part in them: folds, references, and anything that predicts.

A fold leaves one observed time out. What predicts it is a method of the package, which is fitted to the other times
first; or a predictor, a function of the training cells and a time; the references are predictors, too. Each prediction
is compared with the real cells of the time by `score`.
"""

from __future__ import annotations

import inspect
import time as clock
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg._settings import settings
from thalweg.core import distances
from thalweg.data.cells import Cells
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, Cloud, make_noise
from thalweg.flows.config import FitConfig
from thalweg.flows.coupling import PlanCache
from thalweg.flows.fitting import Fitted, train_flow
from thalweg.flows.folds import Fold, Weighted, unless_equal
from thalweg.flows.methods import Method, find_method
from thalweg.flows.prediction import mean, sample
from thalweg.flows.resume import identify_cells
from thalweg.flows.score_rows import Row
from thalweg.flows.share import NONE
from thalweg.flows.time_axis import Spacing, TimeAxis

Floats = NDArray[np.float64]
COLUMNS = [
    *("method", "time", "seed", "w1", "w1_both_ends", "share", "share_low", "share_high"),
    *("energy_distance", "variance_ratio", "fit_seconds"),
]
REFERENCES = ("copy-previous", "ot-midpoint", "floor", "floor-corrected", "floor-replicates")
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
        fitted = self.fit(fold.train, candidate, fold.axis, fold.plans, rng, f"{name}, without {fold.time:g}")
        clouds = _clouds(self.carrier(fitted, fold.train, rng), fold.time, rng)
        return score(fold, name, seed, [fold.judged(cloud) for cloud in clouds], fitted.seconds)

    def fit(
        self, cells: Cells, method: Method, axis: TimeAxis, plans: PlanCache, rng: np.random.Generator, words: str
    ) -> Fitted:
        """Fit a method to some cells, by the plans that are known already."""
        config = self.config
        if not (self.stochastic and method.bridged):  # the dynamics take no part in a prediction
            config = replace(config, sigma=None) if method.bridged else config
            method = replace(method, dynamics="none")
        return train_flow(cells, method, axis, config, rng, device=self.device, cache=plans, description=words)

    def carrier(self, fitted: Fitted, cells: Cells, rng: np.random.Generator) -> Carrier:
        """Carries some cells through a fitted flow."""
        flow = fitted.flow.process if self.stochastic else fitted.flow
        return Carrier(flow, fitted.alive(cells), make_noise(flow, self.stochastic if flow.has_score else False, rng))


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
    """The row of predicted clouds, see `score`, and a real one, which has a share if it is that of the fold."""
    limit, (y, b) = settings.max_memory, (real[0], unless_equal(real[1]))
    by_cloud = [distances.wasserstein_shares(x, y, a=unless_equal(a), b=b, max_memory=limit) for x, a in clouds[:2]]
    share = fold.scale.share(*by_cloud[-1]) if real[0] is fold.truth.x else NONE
    scores = {
        "w1": by_cloud[0][0],
        "w1_both_ends": by_cloud[-1][0],
        "share": share.value,
        "share_low": share.low,
        "share_high": share.high,
        **other_scores(clouds[-1], real),
    }
    return {"method": name, "time": fold.time, "seed": seed, **scores, "fit_seconds": seconds}


def other_scores(cloud: Weighted, real: Weighted) -> dict[str, float]:
    """What is compared besides W1."""
    (x, y), (a, b) = (cloud[0], real[0]), (unless_equal(cloud[1]), unless_equal(real[1]))
    return {
        "energy_distance": distances.energy(x, y, a=a, b=b, max_memory=settings.max_memory),
        "variance_ratio": distances.variance_ratio(x, y, a=a, b=b),
    }
