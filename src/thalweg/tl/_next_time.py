"""`tl.next_time`: which time to measure next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger, settings
from thalweg.core import distances
from thalweg.data.cells import read_course
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.times import TimeMap
from thalweg.errors import InputError
from thalweg.flows.config import FitConfig
from thalweg.tl._fit import fit
from thalweg.tl._interpolate import interpolate
from thalweg.tl._trust.course import REP, TIME, keys, part

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
_LARGEST = 500  # cells of a prediction that are compared


def next_time(
    adata: AnnData,
    time_key: str,
    *,
    methods: str | Sequence[str] = ("otcfm", "fm"),
    n_models: int = 2,
    n_between: int = 3,
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    condition_key: Columns = None,
    baseline: Baseline = None,
    couple_within: Columns = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    config: FitConfig | None = None,
    rng: Rng = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Where predictions disagree most, so that a measurement would tell most.

    Each method is fitted several times with other seeds. Between observed times every fit predicts the population, and
    the predictions are compared with each other by the energy distance. Where they are far apart, the cells that are
    there do not say what happens; a time measured there would.

    The proposal is the middle of the interval in which they are furthest apart. On simulated courses other times of
    that interval were no better (``benchmarks/single_cell/trust.py``). The default methods are those that were best
    there: one moves cells from time to time, the other learns all populations at once.

    Parameters
    ----------
    adata
        Cells; it is not changed.
    time_key, use_rep, n_dims, time_map, condition_key, baseline, couple_within, weight_key, growth_key
        As in `fit`.
    methods
        Names of `fit`, one or more; two or more models in all.
    n_models
        Fits of each method.
    n_between
        Times between two observed ones at which predictions are compared, evenly spaced.
    config
        Of every fit.
    rng
        Seed, numpy Generator or None.
    device
        As in `fit`.

    Returns
    -------
    A row for each time between observed ones: ``time``; ``disagreement``, the mean energy distance of two predictions
    (units of the representation); ``start`` and ``end``, the observed times around it. ``.attrs["time"]`` is the time
    proposed, and ``.attrs["time_key"]`` the column.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If the data cannot be used, or there is only one model.
    """
    methods = [methods] if isinstance(methods, str) else list(methods)
    if n_models * len(methods) < 2 or n_between < 1:
        raise InputError(
            f"two models at least must be compared, at one time between at least; found {len(methods)} methods, "
            f"n_models={n_models} and n_between={n_between}."
        )
    generator = resolve_rng(rng)
    recipe = Recipe(
        time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key,
        baseline=baseline, couple_within=couple_within,
    )  # fmt: skip
    cells = read_course(adata, recipe)
    whole = np.arange(adata.n_obs)
    options = keys(cells, recipe) | {"config": config, "device": device, "check": False}
    fitted = []
    for method in tqdm([m for m in methods for _ in range(n_models)], desc="models", disable=not settings.progress):
        fitted.append(part(adata, cells, recipe, whole))
        fit(fitted[-1], TIME, method=method, rng=int(generator.integers(2**31)), **options)
    out = pd.DataFrame(_rows(fitted, cells.times, n_between, generator))
    most = out.loc[out["disagreement"].idxmax()]
    out.attrs |= {"time": float(most["start"] + most["end"]) / 2, "time_key": time_key}
    logger.info(
        "predictions disagree most between times %g and %g; a measurement at %g would tell most",
        most["start"], most["end"], out.attrs["time"],
    )  # fmt: skip
    return out


def _rows(fitted: Sequence[AnnData], times: Floats, n_between: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """How far predictions disagree at each time between."""
    rows = []
    for start, end in pairwise(times.tolist()):
        for t in np.linspace(start, end, n_between + 2)[1:-1].tolist():
            apart = _disagreement([_population(one, t, rng) for one in fitted])
            rows.append({"time": t, "disagreement": apart, "start": start, "end": end})
    return rows


def _population(fitted: AnnData, time: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Some cells of a prediction, and their weights."""
    there = interpolate(fitted, time)
    rows = rng.permutation(there.n_obs)[:_LARGEST]
    return np.asarray(there.obsm[REP], dtype=np.float64)[rows], there.obs["weight"].to_numpy()[rows]


def _disagreement(populations: list[tuple[Floats, Floats]]) -> float:
    """Mean energy distance of two of them."""
    pairs, limit = combinations(populations, 2), settings.max_memory
    return float(np.mean([distances.energy(x, y, a=a, b=b, max_memory=limit) for (x, a), (y, b) in pairs]))
