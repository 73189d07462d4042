"""`tl.interpolate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.data.cells import Cells
from thalweg.data.entries import find_fit
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, Cloud, make_noise
from thalweg.flows.ensemble import spread
from thalweg.flows.flow import Flow
from thalweg.flows.population import total_size
from thalweg.flows.prediction import Prediction, mean, sample
from thalweg.flows.running import Integrator
from thalweg.flows.store import Stored, load_fit
from thalweg.tl._stored.reading import cells_of, condition_columns, names_of

if TYPE_CHECKING:
    from anndata import AnnData


def interpolate(
    adata: AnnData,
    time: float,
    *,
    key: str = "thalweg",
    source_time: float | None = None,
    both_ends: bool | None = None,
    prediction: Prediction | None = None,
    extrapolate: bool = False,
    stochastic: bool | float | None = None,
    solver: str = "dopri5",
    n_steps: int = 100,
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
) -> AnnData:
    """Predict the cells at any time, observed or not.

    Methods with births and deaths (``"usb"``, ``"uotcfm"``, ``"uam"``) have two flows. Between observed times this
    function runs the one that predicts populations best, in which cells may change their weights instead of moving. At
    a time that the fit has seen it runs the process of the cells, which returns the population that was observed there.
    Cells that vanish in place fade linearly until the next observed time; cells without ancestors rise likewise.

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
        Carry the cells of the next observed time backwards, too; each side weighs by how near it is and by how many
        cells it has. The default between two observed times, without a ``source_time``. False is the protocol of the
        papers: every cell of the time before, where the flow carries it.
    prediction
        ``"mean"``, the default: where cells are expected. From both ends, a cell moves towards the mean of its
        neighbours in the prediction, by more in many dimensions (`thalweg.flows.prediction`); the Wasserstein distance
        rewards this. ``"sample"``: cells with the noise they have, for a look at single cells and for the energy
        distance. For a bridge (``"sf2m"``, ``"eam"``) that is its SDE; for other methods, Gaussian noise with the
        covariance by which the prediction falls short of its neighbouring times.
    extrapolate
        Allow a time outside the observed range.
    stochastic
        Run an SDE instead of the ODE; needs a method with a score (``"usb"``, ``"sf2m"``, ``"eam"``). ``True`` is the
        bridge's own; a number scales its diffusion, and every choice has the same marginals (Song et al. 2021). By
        default, what ``prediction`` needs. With ``"usb"`` the cells then follow their dynamics, with their noise, and
        not the prediction.
    solver
        ``"dopri5"``, ``"tsit5"``, or with fixed steps ``"euler"``, ``"midpoint"``, ``"rk4"``.
    n_steps
        Steps of a fixed-step solver or of the SDE.
    rng, random_state
        Seed of the noise of a sample.
    device
        Where to integrate.

    Returns
    -------
    A new AnnData, a row for each cell carried: ``obsm[use_rep]`` the predicted coordinates (float32),
    ``obs["source"]`` the name of the cell it started from, ``obs["weight"]`` its weight (summing to one; with the
    growth on the way, for methods that learn it and fits with a ``growth_key``), ``obs[time_key]`` the time, and
    ``uns["interpolation"]`` what was done, with the ``source_time`` (of each side), the ``prediction``, whether the
    time was ``observed``, and the ``mass`` of the population relative to the first time (known with sizes or rates;
    otherwise 1). A fit with ``n_models`` adds ``obs["spread"]``: how far the models' predictions of the cell lie from
    their mean, in units of the representation (standard deviation; not for an SDE).

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    InputError
        If ``time`` is not one number, or outside the observed range without ``extrapolate``; if ``source_time`` was not
        observed, ``stochastic`` is asked of a fit without a score, or a sample where times are observed on one side
        only; if ``prediction`` and ``stochastic`` contradict each other.
    """
    stored, time = load_fit(find_fit(adata, key), key, device), _one_number(time)
    trained = time in stored.flow.axis.times.tolist()
    flow = stored.process if stochastic or trained else stored.flow
    wanted = _prediction(prediction, stochastic, flow.has_score)
    flow.axis.check(time, extrapolate=extrapolate)
    cells = stored.alive(cells_of(adata, stored))
    _check_source(cells, source_time, bool(both_ends), stored.recipe.time_key)
    generator = resolve_rng(rng, random_state)
    implied = wanted == "sample" and flow.has_score
    noise = make_noise(flow, implied if stochastic is None else stochastic, generator)
    inside = bool((cells.times < time).any() and (cells.times > time).any())
    both = both_ends if both_ends is not None else source_time is None and not trained and inside

    def predicted(flow: Flow) -> tuple[Carrier, Cloud]:
        carrier = Carrier(flow, cells, noise, Integrator(solver, n_steps))
        if both and inside and not trained and wanted == "mean":
            return carrier, mean(carrier, time, extrapolate=extrapolate)
        return carrier, carrier.predict(time, source_time=source_time, both_ends=both, extrapolate=extrapolate)

    if both and both_ends is None:
        logger.info("predicted from both sides, the default since 0.2; both_ends=False carries the cells before alone")
    carrier, cloud = predicted(flow)
    differ = None if noise else spread(flow, lambda one: predicted(one)[1].x)
    if not trained and wanted == "sample":
        if noise is None and not inside:
            raise InputError(
                f"prediction='sample' needs observed times before and after time={time:g}, or a method with a score; "
                f"obs[{stored.recipe.time_key!r}] has {cells.times.tolist()}."
            )
        cloud = sample(carrier, cloud, time, generator)
    out = _as_anndata(adata, stored, cells, cloud, time)
    if differ is not None:
        out.obs["spread"] = np.linalg.norm(differ, axis=1)
    out.uns["interpolation"] |= {
        "source_time": np.array(cloud.starts),
        "stochastic": 0.0 if noise is None else noise.strength,
        "prediction": wanted,
        "observed": bool((cells.times == time).any()),
        "mass": total_size(cells, time, np.unique(cells.stratum[cloud.rows]).tolist()) if stored.counted else 1.0,
    }
    return out


def _prediction(prediction: Prediction | None, stochastic: bool | float | None, has_score: bool) -> Prediction:
    """What is predicted, where the two arguments agree."""
    wanted: Prediction = prediction or ("sample" if stochastic else "mean")
    if wanted not in get_args(Prediction):
        raise InputError(f"prediction must be 'mean' or 'sample', found {prediction!r}.")
    if wanted == "mean" and stochastic:
        raise InputError(
            f"stochastic={stochastic!r} carries cells with their noise, which a mean has not; give "
            "prediction='sample', or leave stochastic out."
        )
    if wanted == "sample" and stochastic is not None and not stochastic and has_score:
        raise InputError(
            "prediction='sample' runs the SDE of this fit; leave stochastic=False out, or take prediction='mean'."
        )
    return wanted


def _as_anndata(adata: AnnData, stored: Stored, cells: Cells, cloud: Cloud, time: float) -> AnnData:
    """Predicted cells, each with the cell of ``adata`` it started from."""
    import anndata

    recipe, sources = stored.recipe, adata.obs_names[cells.sources[cloud.rows]]
    columns = {"source": sources.to_numpy(), "weight": cloud.weight, recipe.time_key: float(time)}
    columns |= condition_columns(adata, stored, cells, cloud.rows)
    obs = pd.DataFrame(columns, index=names_of(adata, cells, cloud.rows))
    out = anndata.AnnData(obs=obs, obsm={recipe.use_rep: cloud.x.astype(np.float32)})
    out.uns["interpolation"] = {"method": stored.method.name, "time": float(time), **recipe.entry()}
    return out


def _one_number(time: float) -> float:
    try:
        return float(time)
    except (TypeError, ValueError):
        raise InputError(
            f"time must be one number, found {time!r}; for several times call tw.tl.interpolate for each, or take "
            "tw.tl.trajectories(adata, times=...)."
        ) from None


def _check_source(cells: Cells, source_time: float | None, both_ends: bool, time_key: str) -> None:
    if source_time is not None and both_ends:
        raise InputError("both_ends=True takes the times on both sides; leave source_time out.")
    if source_time is not None and source_time not in cells.times:
        raise InputError(
            f"source_time={source_time!r} is not observed in obs[{time_key!r}]; times: {cells.times.tolist()}."
        )
