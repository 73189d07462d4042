"""`tl.log_likelihood`: how dense the learned flow is at each cell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from thalweg._random import Rng, resolve_rng, torch_generator
from thalweg._settings import logger
from thalweg.data.cells import Cells, Rows
from thalweg.data.entries import find_fit
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier
from thalweg.flows.flow import Floats, Flow, LogDensity
from thalweg.flows.noise_flow import NoiseFlow
from thalweg.flows.population import size
from thalweg.flows.store import load_fit
from thalweg.tl._stored.reading import cells_of

if TYPE_CHECKING:
    from anndata import AnnData

_COMPONENTS = (1, 2, 4, 8, 16)


def log_likelihood(
    adata: AnnData,
    *,
    key: str = "thalweg",
    trace: Literal["exact", "hutchinson"] = "exact",
    key_added: str = "log_likelihood",
    rng: Rng = 0,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    """Log density of each cell at its time, under the flow: low values are cells the flow does not explain.

    The density of the first population is carried to the cell's time along the flow, ``d log p/dt = -div v`` (Chen et
    al. 2018; plus the growth rate, for methods that learn one). The first population itself is described by a Gaussian
    mixture with full covariances, whose number of components (1, 2, 4, 8 or 16) has the lowest Bayesian information
    criterion, by the weights of the cells. ``method="fm"`` needs no mixture: its source is standard Gaussian noise at
    every time.

    Parameters
    ----------
    adata
        AnnData with a fit and the cells to score; the cells of the first time must be among them (not for ``"fm"``).
    key
        Key of ``uns`` with the fit.
    trace
        ``"exact"`` divergence, one backward pass for each coordinate; ``"hutchinson"``, an unbiased estimate by a
        single one, for many coordinates (Grathwohl et al. 2019).
    key_added
        Column of ``obs`` to write.
    rng
        Seed of the mixture's start and of Hutchinson's probe.
    device
        Where to integrate.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : float
        Nats, of a density in units of the representation; comparable between cells of one fit and one time. With births
        and deaths (``"usb"``, ``"uotcfm"``, ``"uam"``), of the shares of the population. NaN, with a warning, for cells
        of a condition that was not trained at their time, and for cells that have no ancestor at the first time.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    InputError
        If ``trace`` is unknown, the cells cannot be read as in the fit, a cell lies outside the times of the fit, or
        the cells of the first time are missing.
    """
    if trace not in ("exact", "hutchinson"):
        raise InputError(f"trace must be 'exact' or 'hutchinson', found {trace!r}.")
    stored = load_fit(find_fit(adata, key), key, device)
    flow, generator = stored.process, resolve_rng(rng)
    grows = bool(stored.turnovers)
    recipe = stored.recipe if grows else replace(stored.recipe, growth_key=None, death_key=None)
    cells = stored.alive(cells_of(adata, stored, recipe))
    for t in cells.times.tolist():
        flow.axis.check(t, extrapolate=False)
    sources = _sources(flow, cells, stored.recipe.time_key, generator)
    out = np.full(len(cells.x), np.nan)
    for t in cells.times.tolist():
        for c, source in sources.items():
            rows, (first, last) = cells.rows(t, c), flow.span(cells.condition_of(c))
            if len(rows) and first <= t <= last:
                probe = torch_generator(generator, flow.device) if trace == "hutchinson" else None
                out[rows] = flow.log_density(cells.x[rows], t, source, cells.labels(rows), probe, first)
                if grows and t > first:
                    out[rows] += _log_growth(flow, cells, rows, c, t, first)
    if np.isnan(out).any():
        logger.warning(
            "%d cells are of conditions not trained at their time, or have no ancestor at the first one; they get NaN",
            int(np.isnan(out).sum()),
        )
    result = writable(adata, copy)
    result.obs[key_added] = cells.merged(out)
    logger.info("added obs[%r]: log density of each cell under the flow", key_added)
    return result if copy else None


def _log_growth(flow: Flow, cells: Cells, rows: Rows, condition: int, time: float, first: float) -> Floats:
    """What the growth of a cell since the first time adds to its log density; NaN for one that has no ancestor there.

    Along a path ``d log p / dt = - div v + g``, and a density is one of shares: the growth is relative to that of all.
    """
    weight = Carrier(flow, cells).along(rows, [time, first]).weight[-1]
    with np.errstate(divide="ignore"):
        grown: Floats = np.where(weight > 0, -np.log(weight), np.nan)
    return grown - np.log(size(cells, condition, time) / size(cells, condition, first))


def _sources(flow: Flow, cells: Cells, time_key: str, rng: np.random.Generator) -> dict[int, LogDensity]:
    """Log density of the first population of each condition that was trained."""
    out: dict[int, LogDensity] = {}
    for c in cells.strata:
        first, own = flow.span(cells.condition_of(c))[0], cells.condition == cells.condition_of(c)
        if not np.isfinite(first):
            continue
        if isinstance(flow, NoiseFlow):
            out[c] = lambda z: np.zeros(len(z))  # not used: the source is the noise
            continue
        rows = np.flatnonzero(own & (cells.time == first))
        start = (cells.x[rows] - flow.center) / flow.scale
        if len(start) < 2:
            name = cells.of(c)
            raise InputError(
                f"obs[{time_key!r}] has {len(start)} cells{name} at the first time {first:g}, whose density the "
                "flow carries; keep at least two."
            )
        out[c] = _mixture(start, cells.weights[rows], rng)
    return out


def _mixture(z: Floats, weights: Floats, rng: np.random.Generator) -> LogDensity:
    """Mixture of the lowest Bayesian information criterion, whose sample size is that of equally weighted cells."""
    from sklearn.mixture import GaussianMixture

    seed, d = int(rng.integers(2**31)), z.shape[1]
    n, z = float(weights.sum() ** 2 / (weights @ weights)), _resampled(z, weights, rng)
    sizes = [k for k in _COMPONENTS if k == 1 or k * d < n / 2]
    fits = [GaussianMixture(k, reg_covar=1e-4, random_state=seed).fit(z) for k in sizes]
    numbers = [k * (1 + d + d * (d + 1) / 2) - 1 for k in sizes]
    costs = [np.log(n) * m - 2 * n * float(fit.score(z)) for m, fit in zip(numbers, fits, strict=True)]
    density: LogDensity = fits[int(np.argmin(costs))].score_samples
    return density


def _resampled(x: Floats, weights: Floats, rng: np.random.Generator) -> Floats:
    """Cells in proportion to their weights, as a mixture takes no weights; a systematic draw, as they are if equal."""
    if (weights == weights[0]).all():
        return x
    ticks = (np.arange(len(x)) + rng.random()) / len(x)
    return x[np.searchsorted(np.cumsum(weights / weights.sum()), ticks).clip(max=len(x) - 1)]
