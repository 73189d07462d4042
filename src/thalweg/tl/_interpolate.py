"""`tl.interpolate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from thalweg._random import Rng, resolve_rng, torch_generator
from thalweg._settings import logger
from thalweg.data.snapshots import descendants
from thalweg.errors import InputError
from thalweg.tl._dispersed import disperse_within
from thalweg.tl._flow import Integrator, Noise
from thalweg.tl._store import Stored, load

if TYPE_CHECKING:
    from anndata import AnnData


def interpolate(
    adata: AnnData,
    time: float,
    *,
    key: str = "thalweg",
    source_time: float | None = None,
    both_ends: bool = False,
    dispersed: bool = False,
    extrapolate: bool = False,
    stochastic: bool | float = False,
    solver: str = "dopri5",
    n_steps: int = 100,
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
) -> AnnData:
    """Predict the cells at any time, observed or not.

    Parameters
    ----------
    adata
        AnnData with a fit and the cells to start from.
    time
        Time to predict, one number in units of ``obs[time_key]``.
    key
        Key of ``uns`` with the fit.
    source_time
        Observed time whose cells are carried to ``time``, forwards or backwards; by default the last one before it (the
        first one for the first time itself).
    both_ends
        Carry the cells of the next observed time backwards, too; each side weighs by how near it is. It uses more of
        the data, which helps most where the time before has few cells.
    dispersed
        Add Gaussian noise of the covariance by which the prediction falls short of its neighbouring times: a path
        between two cells averages them, which narrows the noisy directions. W1 in many dimensions rewards the narrow
        prediction (the default); the energy distance, and a look at single cells, the dispersed one.
    extrapolate
        Allow a time outside the observed range.
    stochastic
        Run an SDE instead of the ODE; needs a method with a score (``"sf2m"``, ``"eam"``). ``True`` is the bridge's
        own; a number scales its diffusion, and every choice has the same marginals (Song et al. 2021).
    solver
        ``"dopri5"``, ``"tsit5"``, or with fixed steps ``"euler"``, ``"midpoint"``, ``"rk4"``.
    n_steps
        Steps of a fixed-step solver or of the SDE.
    rng, random_state
        Seed of the noise of ``stochastic`` and ``dispersed``.
    device
        Where to integrate.

    Returns
    -------
    A new AnnData, a row for each cell carried: ``obsm[use_rep]`` the predicted coordinates (float32),
    ``obs["source"]`` the name of the cell it started from, ``obs["weight"]`` its weight (summing to one; with the
    growth on the way, for methods that learn it and fits with a ``growth_key``),
    ``obs[time_key]`` the time, and ``uns["interpolation"]`` what was done.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    InputError
        If ``time`` is not one number, or outside the observed range without ``extrapolate``; if ``source_time`` was not
        observed, ``stochastic`` is asked of a fit without a score, or ``dispersed`` where times are observed on one
        side only.
    """
    stored = load(adata, key, device)
    flow, axis = stored.flow, stored.flow.axis
    time = _one_number(time)
    axis.check(time, extrapolate=extrapolate)
    observed = stored.times_of(adata)
    starts = _starts(np.unique(observed), time, source_time, both_ends, stored)
    x, weights, conditions = stored.coordinates_of(adata), stored.weights_of(adata), stored.conditions_of(adata)
    rates = None if flow.net.grows else stored.rates_of(adata)  # a flow that grows has learned them
    generator = resolve_rng(rng, random_state)
    clouds, shares, sources = [], [], []
    for start, share in starts:
        rows = np.flatnonzero(observed == start)
        cloud, w = x[rows], weights[rows]
        if time != start:
            noise = make_noise(stochastic, generator, flow.device)
            c = None if conditions is None else conditions[rows]
            carried = flow.push(cloud, [start, time], condition=c, noise=noise, integrator=Integrator(solver, n_steps))
            cloud, w = carried.x[-1], w * carried.weight[-1]
            if rates is not None and time > start:
                w = w * descendants(rates[rows], time - start)
        clouds.append(cloud)
        shares.append(share * w / w.sum())
        sources.append(rows)
        logger.info("carried %d cells from time %g to %g", len(rows), start, time)
    rows, cloud, w = np.concatenate(sources), np.concatenate(clouds), np.concatenate(shares)
    if dispersed:
        sides, share = _sides(observed, time, stored)
        labels = np.zeros(len(x), dtype=np.int64) if conditions is None else conditions
        around = [(x[side], weights[side], labels[side]) for side in sides]
        cloud = disperse_within((cloud, w, labels[rows]), around, share, generator)
    out = _as_anndata(adata, stored, rows, cloud, w, time)
    out.uns["interpolation"] |= {
        "source_time": np.array([start for start, _ in starts]),
        "stochastic": float(stochastic),
        "dispersed": dispersed,
    }
    return out


def _as_anndata(
    adata: AnnData, stored: Stored, rows: np.ndarray, cloud: np.ndarray, weight: np.ndarray, time: float
) -> AnnData:
    """Predicted cells, each with the cell of ``adata`` it started from."""
    import anndata

    names = adata.obs_names[rows]
    columns = {"source": names.to_numpy(), "weight": weight, stored.time_key: float(time)}
    obs = pd.DataFrame(columns, index=names)
    if stored.conditions:
        obs[stored.condition_key] = adata.obs[stored.condition_key].to_numpy()[rows]
    out = anndata.AnnData(obs=obs, obsm={stored.use_rep: cloud.astype(np.float32)})
    out.uns["interpolation"] = {
        "method": stored.method,
        "time": float(time),
        "time_key": stored.time_key,
        "use_rep": stored.use_rep,
        "map_labels": np.array(list(stored.time_labels), dtype=str),
        "map_values": np.array(list(stored.time_labels.values()), dtype=np.float64),
    }
    return out


def _one_number(time: float) -> float:
    try:
        return float(time)
    except (TypeError, ValueError):
        raise InputError(
            f"time must be one number, found {time!r}; for several times call tw.tl.interpolate for each, or take "
            "tw.tl.trajectories(adata, times=...)."
        ) from None


def make_noise(stochastic: bool | float, rng: np.random.Generator, device: torch.device) -> Noise | None:
    """The noise of ``stochastic=``; None for the ODE.

    Raises
    ------
    InputError
        If it is negative or not finite.
    """
    strength = float(stochastic)
    if not 0 <= strength < np.inf:
        raise InputError(f"stochastic must be True, False or a non-negative number, found {stochastic!r}.")
    return Noise(torch_generator(rng, device), strength) if strength else None


def _starts(
    observed: np.ndarray, time: float, source_time: float | None, both_ends: bool, stored: Stored
) -> list[tuple[float, float]]:
    """Observed times to carry cells from, and the share of each."""
    if source_time is not None:
        if both_ends:
            raise InputError("both_ends=True takes the times on both sides; leave source_time out.")
        if source_time not in observed:
            raise InputError(
                f"source_time={source_time!r} is not observed in obs[{stored.time_key!r}]; times: {observed.tolist()}."
            )
        return [(float(source_time), 1.0)]
    before, after = observed[observed < time], observed[observed > time]
    start = float(before[-1] if len(before) else observed[0])
    if not both_ends or not len(before) or not len(after):
        return [(start, 1.0)]
    share = _share(start, time, float(after[0]), stored)
    return [(start, 1 - share), (float(after[0]), share)]


def _share(before: float, time: float, after: float, stored: Stored) -> float:
    """How far ``time`` lies between two others on the axis of the fit."""
    lo, now, hi = stored.flow.axis.tau([before, time, after])
    return float((now - lo) / (hi - lo))


def _sides(observed: np.ndarray, time: float, stored: Stored) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Rows of the times around ``time``, and how far it lies between them."""
    before, after = observed[observed < time], observed[observed > time]
    if not len(before) or not len(after):
        raise InputError(
            f"dispersed=True needs observed times before and after time={time:g}; "
            f"obs[{stored.time_key!r}] has {np.unique(observed).tolist()}."
        )
    lo, hi = float(before.max()), float(after.min())
    return (np.flatnonzero(observed == lo), np.flatnonzero(observed == hi)), _share(lo, time, hi, stored)
