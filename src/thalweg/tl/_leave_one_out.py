"""`tl.leave_one_out`: how well each method predicts a time point it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from thalweg._random import Rng, resolve_rng
from thalweg._settings import settings
from thalweg.core import distances
from thalweg.core.exact_ot import solve_exact
from thalweg.data import Snapshots, read_snapshots
from thalweg.data.times import TimeMap
from thalweg.errors import InputError
from thalweg.tl._axis import Spacing, TimeAxis, make_axis
from thalweg.tl._config import FitConfig
from thalweg.tl._couple import PlanCache
from thalweg.tl._interpolate import make_noise
from thalweg.tl._methods import find_method
from thalweg.tl._resume import identify_cells
from thalweg.tl._scores import Row, Scores, Unit
from thalweg.tl._train import resolve_device, train_flow

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
COLUMNS = ["method", "time", "seed", "w1", "energy_distance", "variance_ratio", "fit_seconds"]


def leave_one_out(
    adata: AnnData,
    time_key: str,
    *,
    methods: str | Sequence[str] = ("otcfm", "sf2m"),
    times: Sequence[float] | None = None,
    n_seeds: int = 3,
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    condition_key: str | None = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    spacing: Spacing = "real",
    stochastic: bool | float = False,
    config: FitConfig | None = None,
    rng: Rng = 0,
    device: str = "auto",
    checkpoint_dir: str | PathLike[str] | None = None,
    resume: bool = False,
) -> pd.DataFrame:
    """Hold out each interior time point, predict it, and score the prediction by exact Wasserstein-1.

    For each held-out time every method is fitted to the other times only, all cells of the time before are carried to
    it, and the cloud is compared with all real cells. The same is done for three references without a network:
    ``"copy-previous"``, the cells of the time before as they are; ``"ot-midpoint"``, the optimal plan between the
    neighbouring times, followed on straight lines; ``"floor"``, two disjoint halves of the real cells, which is how far
    apart two samples of the truth are.

    Parameters
    ----------
    adata
        Cells of three or more time points; it is not changed.
    time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key
        As in `fit`.
    methods
        Method or methods to score, by the names of `fit`; the references come with every table.
    times
        Times to hold out; all interior ones by default.
    n_seeds
        Number of seeds for each method and for the floor.
    spacing
        ``"real"`` places the held-out time by the spacing of ``obs[time_key]``; ``"index"`` numbers all times of the
        course, the held-out one included, as several papers do.
    stochastic
        Carry cells by the SDE for methods that have a score, see `interpolate`.
    config
        Of every fit.
    rng
        Seed of the first fit; the following seeds count up from it. A generator draws it.
    device
        As in `fit`.
    checkpoint_dir
        Folder in which each row is stored when it is made (``scores.json``); none by default.
    resume
        Keep the rows found in ``checkpoint_dir``: only what is missing is made, including rows that failed, and
        methods, times or seeds that were not asked for then.

    Returns
    -------
    A row for each method (and reference) x held-out time x seed, with columns ``method``, ``time``, ``seed``, ``w1``
    (units of the representation), ``energy_distance``, ``variance_ratio`` (predicted over real) and ``fit_seconds``
    (plans included; 0 for references). A fit that fails is logged as an error and listed in ``.attrs["failures"]``, a
    list of ``method``, ``time``, ``seed`` and ``error``, and the others go on.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If there is no interior time, a time is not an interior one, a method is unknown, or the data cannot be used;
        if ``checkpoint_dir`` holds rows and ``resume`` is False, or rows of other data or options.
    CheckpointError
        If the stored rows are damaged or of a newer format.
    Exception
        The first failure, if every fit failed.
    """
    methods = [methods] if isinstance(methods, str) else [*methods]
    for name in methods:
        find_method(name)
    if n_seeds < 1:
        raise InputError(f"n_seeds must be at least 1, found {n_seeds}.")
    snapshots = read_snapshots(
        adata,
        time_key,
        use_rep=use_rep,
        n_dims=n_dims,
        time_map=time_map,
        weight_key=weight_key,
        condition_key=condition_key,
        growth_key=growth_key,
    )
    held_out = _held_out(snapshots.times, times, time_key)
    first = int(rng) if isinstance(rng, int | np.integer) else int(resolve_rng(rng).integers(2**31))
    run = _Run(snapshots, spacing, config or FitConfig(), resolve_device(device), stochastic)
    scores = Scores(checkpoint_dir, run.identity, resume=resume)
    seeds = range(first, first + n_seeds)
    units: list[Unit] = []
    with tqdm(total=len(held_out) * n_seeds * len(methods), desc="leave one out", disable=not settings.progress) as bar:
        for time in held_out:
            fold = _Fold(snapshots, time, _fold_axis(snapshots.times, time, spacing))
            for unit in _reference_units(time, seeds):
                scores.collect(unit, partial(_REFERENCES[unit.method], fold, unit.seed))
                units.append(unit)
            for method, seed in product(methods, seeds):
                unit = Unit(method, time, seed)
                scores.collect(unit, partial(run.score, fold, method, seed))
                units.append(unit)
                bar.update()
    table = pd.DataFrame(scores.rows(units, [u for u in units if u.method in methods]), columns=COLUMNS)
    table.attrs["failures"] = scores.failures
    return table


def _held_out(observed: Floats, times: Sequence[float] | None, time_key: str) -> list[float]:
    interior = observed[1:-1].tolist()
    if not interior:
        raise InputError(f"obs[{time_key!r}] has the times {observed.tolist()}: leaving one out needs three or more.")
    unknown = [t for t in times or () if t not in interior]
    if unknown:
        raise InputError(f"times={unknown} are not interior times of obs[{time_key!r}]; choose from {interior}.")
    return interior if times is None else [float(t) for t in times]


def _fold_axis(observed: Floats, held_out: float, spacing: Spacing) -> TimeAxis:
    """The axis of a fit without ``held_out``; under index spacing that time keeps its number in the full course."""
    if spacing == "index":
        spacing = {t: float(i) for i, t in enumerate(observed.tolist())}
    return make_axis(observed[observed != held_out], spacing)


@dataclass(frozen=True)
class _Fold:
    """One held-out time: what is trained on, what is carried, and what the truth is."""

    full: Snapshots
    time: float
    axis: TimeAxis
    plans: PlanCache = field(default_factory=dict)

    @property
    def train(self) -> Snapshots:
        return self.full.without(self.time)

    @property
    def real(self) -> Floats:
        return self.full.at(self.time)

    @property
    def before(self) -> float:
        return float(self.axis.times[self.axis.times < self.time][-1])

    @property
    def after(self) -> float:
        return float(self.axis.times[self.axis.times > self.time][0])

    def row(self, method: str, seed: int, cloud: Floats, seconds: float, weights: Floats | None = None) -> Row:
        return self.compare(method, seed, cloud, self.real, seconds, weights)

    def compare(
        self, method: str, seed: int, cloud: Floats, real: Floats, seconds: float, weights: Floats | None = None
    ) -> Row:
        scores = {
            "w1": distances.wasserstein(cloud, real, a=weights),
            "energy_distance": distances.energy(cloud, real, a=weights),
            "variance_ratio": distances.variance_ratio(cloud, real, a=weights),
        }
        return {"method": method, "time": self.time, "seed": seed, **scores, "fit_seconds": seconds}


@dataclass(frozen=True)
class _Run:
    full: Snapshots
    spacing: Spacing
    config: FitConfig
    device: torch.device
    stochastic: bool | float

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a row besides its method, time and seed."""
        return {
            "cells": identify_cells(self.full),
            "spacing": self.spacing if isinstance(self.spacing, str) else sorted(self.spacing.items()),
            "config": asdict(self.config),
            "device": self.device.type,
            "stochastic": self.stochastic,
        }

    def score(self, fold: _Fold, method: str, seed: int) -> Row:
        rng = np.random.default_rng(seed)
        fitted = train_flow(
            fold.train,
            method,
            fold.axis,
            self.config,
            rng,
            device=self.device,
            cache=fold.plans,
            description=f"{method}, without {fold.time:g}",
        )
        noise = make_noise(self.stochastic if find_method(method).score else False, rng, fitted.flow.device)
        rows = fold.full.rows(fold.before)
        condition = fold.full.condition[rows] if fold.full.conditions else None
        carried = fitted.flow.push(fold.full.x[rows], [fold.before, fold.time], condition=condition, noise=noise)
        w = fold.full.weights[rows] if fitted.flow.net.grows else fold.full.grown(rows, fold.time - fold.before)
        weights = w * carried.weight[-1]
        return fold.row(method, seed, carried.x[-1], fitted.seconds, weights / weights.sum())


def _reference_units(time: float, seeds: range) -> list[Unit]:
    once = [Unit(name, time, seeds[0]) for name in ("copy-previous", "ot-midpoint")]
    return once + [Unit("floor", time, seed) for seed in seeds]


def _copy_previous(fold: _Fold, seed: int) -> Row:
    return fold.row("copy-previous", seed, fold.full.at(fold.before), 0.0)


def _ot_midpoint(fold: _Fold, seed: int) -> Row:
    before, after = fold.full.at(fold.before), fold.full.at(fold.after)
    plan = solve_exact(before, after, cost="sqeuclidean")
    lo, mid, hi = fold.axis.tau([fold.before, fold.time, fold.after])
    share = (mid - lo) / (hi - lo)
    points = (1 - share) * before[plan.rows] + share * after[plan.cols]
    return fold.row("ot-midpoint", seed, points, 0.0, plan.mass)


def _floor(fold: _Fold, seed: int) -> Row | None:
    """None where a single real cell has no two halves."""
    order = np.random.default_rng(seed).permutation(len(fold.real))
    half = len(order) // 2
    return fold.compare("floor", seed, fold.real[order[:half]], fold.real[order[half:]], 0.0) if half else None


_REFERENCES: dict[str, Callable[[_Fold, int], Row | None]] = {
    "copy-previous": _copy_previous,
    "ot-midpoint": _ot_midpoint,
    "floor": _floor,
}
