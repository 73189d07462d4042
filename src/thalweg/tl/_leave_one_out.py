"""`tl.leave_one_out`: how well each method predicts a time point it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from thalweg._device import resolve_device
from thalweg._random import Rng, resolve_rng
from thalweg._settings import settings
from thalweg.data.cells import read_course
from thalweg.data.entries import plan_relaxation
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.times import TimeMap
from thalweg.errors import InputError
from thalweg.flows.choice import AUTO, auto_row
from thalweg.flows.config import FitConfig
from thalweg.flows.evaluate import (
    COLUMNS,
    Candidate,
    Trial,
    candidates,
    takes_rng,
)
from thalweg.flows.folds import Fold, make_folds
from thalweg.flows.methods import Method
from thalweg.flows.references import reference_row, reference_units
from thalweg.flows.score_rows import ScoreRows, Unit
from thalweg.flows.time_axis import Spacing

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]


def leave_one_out(
    adata: AnnData,
    time_key: str,
    *,
    methods: str | Candidate | Sequence[str | Candidate] = ("usb", "otcfm"),
    times: Sequence[float] | None = None,
    n_seeds: int = 3,
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    condition_key: Columns = None,
    baseline: Baseline = None,
    couple_within: Columns = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    replicate_key: str | None = None,
    spacing: Spacing = "clock",
    stochastic: bool | float = False,
    config: FitConfig | None = None,
    rng: Rng = 0,
    device: str = "auto",
    checkpoint_dir: str | PathLike[str] | None = None,
    resume: bool = False,
) -> pd.DataFrame:
    """Hold out each interior time point, predict it, and score the prediction by exact Wasserstein-1.

    For each held-out time every method is fitted to the other times only, and its predictions are compared with all
    real cells: all cells of the time before carried to it (``w1``, the protocol of the papers), and the defaults of
    `interpolate`, which carry the cells of the time after, too (``w1_both_ends``). The same is done for references
    without a network: ``"copy-previous"``, the cells of the time before as they are; ``"ot-midpoint"``, the optimal
    plan between the neighbouring times, followed on straight lines; ``"floor"``, two disjoint halves of the real cells;
    ``"floor-corrected"``, what a fresh sample of the real population, of as many cells, would score
    (`thalweg.core.fresh`). Halves lie further apart than whole samples, so ``"floor"`` is too high. With a
    ``replicate_key`` also ``"floor-replicates"``, the mean distance of two replicates of the time: what another
    experiment would score. `leave_one_replicate_out` leaves replicates out.

    ``share`` says how good a score is: how much of the way from ``"copy-previous"`` to ``"floor-corrected"`` the
    prediction from both ends covers (`thalweg.flows.share`). It is 0 for a copy and 1 for a fresh sample.

    Parameters
    ----------
    adata
        Cells of three or more time points; it is not changed.
    time_key, use_rep, n_dims, time_map, condition_key, baseline, couple_within, weight_key, growth_key
        As in `fit`. Weights and conditions count in predictions, references and the truth alike: each condition is
        predicted from its own neighbouring times. Growth rates that `thalweg.pp.growth` made of plans
        (``method="unbalanced"``) have seen the time held out; they are computed again in every fold, without it.
    replicate_key
        Column of ``obs`` with the replicate of each cell, for ``"floor-replicates"`` and the interval of the share.
    methods
        What to score; the references come with every table. Names of `fit`; ``"auto"``, which is chosen for each time
        left out by the others (`choose`); a `Method` of your own; or any function
        ``predict(cells, time)``: from the training cells (`thalweg.data.cells.Cells`) and the time left out it returns
        coordinates of shape ``(m, d)``, or these and weights of shape ``(m,)``. Its row has the function's name. One
        with a parameter ``rng`` is called for each seed, with a numpy Generator, another one once.
    times
        Times to hold out; all interior ones by default.
    n_seeds
        Number of seeds for each method and for the floor.
    spacing
        ``"clock"`` places the held-out time by the cells' clock, which is set by the other times alone; ``"real"`` by
        the spacing of ``obs[time_key]``, as ``"ot-midpoint"`` always does unless model times are given; ``"index"``
        numbers all times of the course, the held-out one included, as several papers do.
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
    A row for each method (and reference) x held-out time x seed, with columns ``method``, ``time``,
    ``seed``, ``w1`` and ``w1_both_ends`` (units of the representation), ``share`` (of ``w1_both_ends``) with the limits
    ``share_low`` and ``share_high`` of its 95 % interval over real cells (over replicates with ``replicate_key``, NaN
    where a condition has one replicate), ``energy_distance`` and ``variance_ratio``
    (predicted over real) of the prediction with the noise of its cells (``prediction="sample"`` of `interpolate`), and
    ``fit_seconds`` (plans included; 0 for references). A reference, and a function of your own, makes one prediction,
    which counts in all. The share is NaN where a copy is as good as a fresh sample, so that nothing moved, and for the
    floors what they do not have is NaN. A fit that fails is logged as an error and listed in ``.attrs["failures"]``, a
    list of ``method``, ``time``, ``seed`` and ``error``, and the others go on.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If there is no interior time, a time is not an interior one, a method is unknown, the data cannot be used, or
        ``config`` asks for a learned score, which no prediction uses;
        if ``checkpoint_dir`` holds rows and ``resume`` is False, or rows of other data or options.
    CheckpointError
        If the stored rows are damaged or of a newer format.
    Exception
        The first failure, if every fit failed.
    """
    given = [methods] if isinstance(methods, str | Method) or callable(methods) else list(methods)
    chosen = candidates([one for one in given if one != AUTO])
    if n_seeds < 1:
        raise InputError(f"n_seeds must be at least 1, found {n_seeds}.")
    if config is not None and config.score is not None:
        raise InputError(
            f"config.score={config.score!r} changes no prediction, which is all that is scored here; leave it "
            "out, or score methods='usb'."
        )
    recipe = Recipe(
        time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key, replicate_key=replicate_key,
        baseline=baseline, couple_within=couple_within,
    )  # fmt: skip
    cells = read_course(adata, recipe)
    relaxation = None if growth_key is None else plan_relaxation(adata, growth_key)
    folds = make_folds(cells, _held_out(cells.times, times, time_key), spacing, relaxation)
    first = int(rng) if isinstance(rng, int | np.integer) else int(resolve_rng(rng).integers(2**31))
    trial = Trial(config or FitConfig(), spacing, resolve_device(device), stochastic)
    rows = ScoreRows(checkpoint_dir, trial.identity(cells), resume=resume)
    seeds = range(first, first + n_seeds)
    units = _collect(rows, folds, seeds, chosen, trial, AUTO in given)
    table = pd.DataFrame(rows.rows(units, [u for u in units if u.method in (*chosen, AUTO)]), columns=COLUMNS)
    table.attrs["failures"] = rows.failures
    return table


def _collect(
    rows: ScoreRows,
    folds: Sequence[Fold],
    seeds: range,
    chosen: Mapping[str, Candidate],
    trial: Trial,
    auto: bool,
) -> list[Unit]:
    """Score everything at each time; what was scored, in the order of the table."""
    units: list[Unit] = []
    with tqdm(total=len(folds) * len(seeds) * len(chosen), desc="leave one out", disable=not settings.progress) as bar:
        for fold in folds:
            for unit in reference_units(fold.time, seeds):
                rows.collect(unit, partial(reference_row, fold, unit))
                units.append(unit)
            for (name, candidate), seed in product(chosen.items(), seeds):
                bar.update()
                if seed == seeds[0] or isinstance(candidate, Method) or takes_rng(candidate):
                    unit = Unit(name, fold.time, seed)
                    rows.collect(unit, partial(trial.row, fold, name, candidate, seed))
                    units.append(unit)
            for seed in seeds if auto else ():
                units.append(Unit(AUTO, fold.time, seed))
                rows.collect(units[-1], partial(auto_row, fold, trial, seed))
    return units


def _held_out(observed: Floats, times: Sequence[float] | None, time_key: str) -> list[float]:
    interior = observed[1:-1].tolist()
    if not interior:
        raise InputError(f"obs[{time_key!r}] has the times {observed.tolist()}: leaving one out needs three or more.")
    unknown = [t for t in times or () if t not in interior]
    if unknown:
        raise InputError(f"times={unknown} are not interior times of obs[{time_key!r}]; choose from {interior}.")
    return interior if times is None else [float(t) for t in times]
