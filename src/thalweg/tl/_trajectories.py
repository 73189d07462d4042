"""`tl.trajectories`: paths of chosen cells, dense in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger, settings
from thalweg.data.snapshots import descendants
from thalweg.errors import InputError, MemoryBudgetError
from thalweg.tl._cells import Selection, select_cells
from thalweg.tl._flow import Floats, Flow, Integrator, Labels, Noise
from thalweg.tl._interpolate import make_noise
from thalweg.tl._store import Stored, load

if TYPE_CHECKING:
    from anndata import AnnData

Direction = Literal["forward", "backward", "both"]


def trajectories(
    adata: AnnData,
    cells: Selection | int | None = None,
    *,
    key: str = "thalweg",
    times: ArrayLike | None = None,
    n_times: int = 51,
    direction: Direction = "forward",
    stochastic: bool | float = False,
    n_samples: int = 1,
    solver: str = "dopri5",
    n_steps: int = 20,
    extrapolate: bool = False,
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
) -> AnnData:
    """Paths of chosen cells through time.

    Each cell starts at its own time and runs over those of ``times`` that lie ahead of it.

    Parameters
    ----------
    adata
        AnnData with a fit.
    cells
        Cells to follow: names; a boolean mask; a mapping from columns of ``obs`` to values, such as
        ``{"cell_type": "HSC"}``; or a number, for so many cells drawn at random. By default all cells of the first
        observed time (of the last, for ``direction="backward"``), from which a number is drawn, too.
    key
        Key of ``uns`` with the fit.
    times
        Times to record, in units of ``obs[time_key]``; by default ``n_times`` at equal distances over the observed
        range. The cell's own time is always recorded.
    n_times
        Number of times where ``times`` is not given.
    direction
        ``"forward"`` from the cell's own time, ``"backward"``, or ``"both"``.
    stochastic
        Run the SDE instead of the ODE; needs a method with a score (``"sf2m"``, ``"eam"``). ``True`` is the bridge's
        own; a number scales its diffusion.
    n_samples
        Paths from each cell; more than one needs ``stochastic``.
    solver
        ODE solver, as in `interpolate`.
    n_steps
        Steps between two successive times, of a fixed-step solver or of the SDE.
    extrapolate
        Allow times outside the observed range.
    rng, random_state
        Seed of the draw of cells and of the SDE's noise.
    device
        Where to integrate.

    Returns
    -------
    A new AnnData, a row for each path and time, path by path with ascending times: ``obsm[use_rep]`` the coordinates
    (float32), ``obs["trajectory"]`` (category) the path, ``obs["source"]`` (category) the name of the cell it starts
    from, ``obs["weight"]`` its weight (with the growth on the way; the weights of one time sum to one, as in
    `interpolate`), ``obs[time_key]`` the time, the condition of the fit if it has one, and ``uns["trajectories"]`` what
    was done.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``, or a cell does not exist.
    InputError
        If a time lies outside the observed range without ``extrapolate``, or an option cannot be used.
    MemoryBudgetError
        If the result would exceed ``thalweg.settings.max_memory``.
    """
    generator, stored = resolve_rng(rng, random_state), load(adata, key, device)
    noise = make_noise(stochastic, generator, stored.flow.device)
    if n_samples < 1 or (n_samples > 1 and noise is None):
        raise InputError(f"n_samples={n_samples}: give 1, or more with stochastic=True; the ODE has one path per cell.")
    if direction not in ("forward", "backward", "both"):
        raise InputError(f"direction must be 'forward', 'backward' or 'both', found {direction!r}.")
    observed = stored.times_of(adata)
    grid = _grid(stored, times, n_times, extrapolate)
    chosen = np.repeat(_chosen(adata, cells, observed, direction, generator), n_samples)
    _check_memory(len(chosen), len(grid) + 1, stored.flow.n_dims)
    x, weights, conditions = stored.coordinates_of(adata), stored.weights_of(adata), stored.conditions_of(adata)
    rates = None if stored.flow.net.grows else stored.rates_of(adata)  # a flow that grows has learned them
    bundles = []
    for start in np.unique(observed[chosen]).tolist():
        rows = chosen[observed[chosen] == start]
        legs = _legs(start, grid, direction)
        labels = None if conditions is None else conditions[rows]
        run = _Run(stored.flow, noise, Integrator(solver, n_steps), None if rates is None else rates[rows])
        bundles.append(run(rows, x[rows], weights[rows], labels, legs))
    out = _assemble(adata, stored, bundles, n_samples)
    out.uns["trajectories"] = {
        "method": stored.method,
        "times": grid,
        "time_key": stored.time_key,
        "use_rep": stored.use_rep,
        "direction": direction,
        "stochastic": float(stochastic),
        "n_samples": n_samples,
        "condition_key": stored.condition_key,
        "map_labels": np.array(list(stored.time_labels), dtype=str),
        "map_values": np.array(list(stored.time_labels.values()), dtype=np.float64),
    }
    logger.info("%d paths at the %d times from %g to %g", len(chosen), len(grid), grid[0], grid[-1])
    return out


def _grid(stored: Stored, times: ArrayLike | None, n_times: int, extrapolate: bool) -> Floats:
    axis = stored.flow.axis
    if times is None:
        if n_times < 2:
            raise InputError(f"n_times must be at least 2, found {n_times!r}.")
        return np.linspace(axis.times[0], axis.times[-1], n_times)
    grid = np.unique(np.asarray(times, dtype=np.float64))
    if not grid.size:
        raise InputError("times is empty; give at least one, or leave it out.")
    for time in grid.tolist():
        axis.check(time, extrapolate=extrapolate)
    return grid


def _chosen(
    adata: AnnData,
    cells: Selection | int | None,
    observed: Floats,
    direction: Direction,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    if cells is not None and not isinstance(cells, int | np.integer):
        return select_cells(adata, cells)
    rows = np.flatnonzero(observed == (observed.max() if direction == "backward" else observed.min()))
    if cells is None:
        return rows
    if isinstance(cells, bool) or not 1 <= cells <= len(rows):
        raise InputError(f"cells={cells} must be between 1 and the {len(rows)} cells of time {observed[rows[0]]:g}.")
    return np.sort(rng.choice(rows, int(cells), replace=False))


def _check_memory(n_paths: int, n_times: int, n_dims: int) -> None:
    size = n_paths * n_times * n_dims * 4
    if size > settings.max_memory:
        raise MemoryBudgetError(
            f"the paths take {n_paths} x {n_times} rows x {n_dims} columns x 4 bytes = {size / 2**30:.1f} GiB, over "
            f"settings.max_memory = {settings.max_memory / 2**30:.1f} GiB; choose fewer cells or times."
        )


def _legs(start: float, grid: Floats, direction: Direction) -> list[list[float]]:
    """Times to run through from ``start``, once for each way to go."""
    back, ahead = grid[grid < start][::-1].tolist(), grid[grid > start].tolist()
    return [
        [start, *back] if direction != "forward" else [start],
        [start, *ahead] if direction != "backward" else [start],
    ]


@dataclass(frozen=True)
class _Bundle:
    """Paths that start at one time: rows of the cells, ascending times, coordinates (n, T, d) and weights (n, T)."""

    rows: NDArray[np.int64]
    times: Floats
    x: NDArray[np.float32]
    weight: Floats


@dataclass(frozen=True)
class _Run:
    flow: Flow
    noise: Noise | None
    integrator: Integrator
    rates: Floats | None

    def __call__(
        self, rows: NDArray[np.int64], x: Floats, weight: Floats, condition: Labels | None, legs: list[list[float]]
    ) -> _Bundle:
        (back, back_weight), (ahead, ahead_weight) = (self._push(x, leg, condition) for leg in legs)
        times = np.array([*legs[0][:0:-1], *legs[1]])
        states = np.concatenate([back[:0:-1], ahead]).swapaxes(0, 1)
        growth = np.concatenate([back_weight[:0:-1], ahead_weight]).T
        if self.rates is not None:
            growth = growth * descendants(self.rates[:, None], np.maximum(times - legs[0][0], 0))
        return _Bundle(rows, times, states, weight[:, None] * growth)

    def _push(self, x: Floats, times: list[float], condition: Labels | None) -> tuple[NDArray[np.float32], Floats]:
        if len(times) == 1:
            return x[None].astype(np.float32), np.ones((1, len(x)))
        carried = self.flow.push(x, times, condition=condition, noise=self.noise, integrator=self.integrator)
        carried.x[0] = x  # as they are, not as float32 arithmetic leaves them
        return carried.x.astype(np.float32), carried.weight


def _assemble(adata: AnnData, stored: Stored, bundles: list[_Bundle], n_samples: int) -> AnnData:
    import anndata

    rows = np.concatenate([b.rows for b in bundles])
    lengths = np.repeat([len(b.times) for b in bundles], [len(b.rows) for b in bundles])
    names = adata.obs_names[rows].astype(str)
    sample = np.concatenate([np.arange(len(b.rows)) % n_samples for b in bundles]).astype(str)
    paths = names if n_samples == 1 else names + "-" + sample
    path = np.repeat(np.arange(len(rows)), lengths)
    time = np.concatenate([np.tile(b.times, len(b.rows)) for b in bundles])
    weight = np.concatenate([b.weight.ravel() for b in bundles])
    step = np.arange(len(path)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    _, moment = np.unique(time, return_inverse=True)
    source = pd.Categorical(names)
    columns = {
        "trajectory": pd.Categorical.from_codes(path, paths),
        "source": source[path],
        "weight": weight / np.bincount(moment, weight)[moment],
        stored.time_key: time,
    }
    obs = pd.DataFrame(columns, index=paths[path] + "@" + step.astype(str))
    if stored.conditions:
        obs[stored.condition_key] = adata.obs[stored.condition_key].array[rows][path]
    return anndata.AnnData(
        obs=obs, obsm={stored.use_rep: np.concatenate([b.x.reshape(-1, b.x.shape[2]) for b in bundles])}
    )
