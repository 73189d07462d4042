"""`tl.trajectories`: paths of chosen cells, dense in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from thalweg._memory import check_memory
from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger, settings
from thalweg.data.cells import Cells
from thalweg.data.entries import find_fit
from thalweg.data.selection import Selection, select_cells
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.running import Integrator
from thalweg.flows.store import Stored, load_fit
from thalweg.tl._stored.reading import cells_of, condition_columns, names_of

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Pair = tuple[float, float]
Direction = Literal["forward", "backward", "both"]


def trajectories(
    adata: AnnData,
    cells: Selection | int | None = None,
    *,
    key: str = "thalweg",
    times: ArrayLike | None = None,
    n_times: int = 51,
    direction: Direction = "forward",
    stochastic: bool | float | None = None,
    n_samples: int = 1,
    solver: str = "dopri5",
    n_steps: int = 20,
    extrapolate: bool = False,
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
) -> AnnData:
    """Paths of chosen cells through time.

    Each cell starts at its own time and runs over those of ``times`` that lie ahead of it and at which its condition
    was trained.

    Parameters
    ----------
    adata
        AnnData with a fit.
    cells
        Cells to follow: names; a boolean mask; a mapping from columns of ``obs`` to values, such as
        ``{"cell_type": "HSC"}``; or a number, for so many cells drawn at random. By default all cells of the first
        observed time of their condition (of the last, for ``direction="backward"``), from which a number is drawn, too.
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
        Run the SDE, with the noise of the cells: True, a number that scales its diffusion, or False for the ODE. By
        default the SDE for ``"usb"``; it needs a method with a score (``"usb"``, ``"sf2m"``, ``"eam"``).
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
    generator, stored = resolve_rng(rng, random_state), load_fit(find_fit(adata, key), key, device)
    noise = make_noise(stored.process, stored.method.bridged if stochastic is None else stochastic, generator)
    if n_samples < 1 or (n_samples > 1 and noise is None):
        raise InputError(f"n_samples={n_samples}: give 1, or more with stochastic=True; the ODE has one path per cell.")
    if direction not in ("forward", "backward", "both"):
        raise InputError(f"direction must be 'forward', 'backward' or 'both', found {direction!r}.")
    course, grid = stored.alive(cells_of(adata, stored)), _grid(stored, times, n_times, extrapolate)
    chosen = np.repeat(_chosen(adata, cells, course, direction, generator), n_samples)
    fix = "choose fewer cells or times"
    check_memory("the paths", len(chosen), (len(grid) + 1) * course.n_dims, 4, settings.max_memory, fix)
    carrier = Carrier(stored.process, course, noise, Integrator(solver, n_steps))
    bundles = []
    for start, (first, last), rows in _groups(carrier, chosen):
        own = grid if extrapolate else grid[(grid >= first) & (grid <= last)]
        bundles.append(_bundle(carrier, rows, *_ways(start, own, direction)))
    out = _assemble(adata, stored, course, bundles, n_samples)
    out.uns["trajectories"] = {
        "method": stored.method.name,
        "times": grid,
        "direction": direction,
        "stochastic": noise.strength if noise else 0.0,
        "n_samples": n_samples,
        **stored.recipe.entry(),
    }
    logger.info("%d paths at the %d times from %g to %g", len(chosen), len(grid), grid[0], grid[-1])
    return out


def _grid(stored: Stored, times: ArrayLike | None, n_times: int, extrapolate: bool) -> Floats:
    axis = stored.process.axis
    if times is None:
        if n_times < 2:
            raise InputError(f"n_times must be at least 2, found {n_times!r}.")
        return _snapped(np.linspace(axis.times[0], axis.times[-1], n_times), axis.times)
    grid = np.unique(np.asarray(times, dtype=np.float64))
    if not grid.size:
        raise InputError("times is empty; give at least one, or leave it out.")
    for time in grid.tolist():
        axis.check(time, extrapolate=extrapolate)
    return grid


def _snapped(grid: Floats, observed: Floats) -> Floats:
    """The grid, with times that are observed ones but for rounding put on them."""
    nearest = observed[np.abs(grid[:, None] - observed).argmin(1)]
    return np.unique(np.where(np.abs(grid - nearest) <= 1e-9 * np.ptp(observed), nearest, grid))


def _chosen(
    adata: AnnData,
    cells: Selection | int | None,
    course: Cells,
    direction: Direction,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    if cells is not None and not isinstance(cells, int | np.integer):
        return course.standing_for(select_cells(adata, cells))
    end = -1 if direction == "backward" else 0
    rows = np.sort(np.concatenate([course.rows(float(course.times_of(c)[end]), c) for c in course.strata]))
    if cells is None:
        return rows
    if isinstance(cells, bool) or not 1 <= cells <= len(rows):
        when = ", ".join(f"{t:g}" for t in np.unique(course.time[rows]))
        raise InputError(f"cells={cells} must be between 1 and the {len(rows)} cells of time {when}.")
    return np.sort(rng.choice(rows, int(cells), replace=False))


def _groups(carrier: Carrier, chosen: NDArray[np.int64]) -> Iterator[tuple[float, Pair, NDArray[np.int64]]]:
    """Cells that start at one time and may run over the same times: those between which their condition was trained."""
    course, spans = carrier.cells, {c: carrier.flow.span(carrier.cells.condition_of(c)) for c in carrier.cells.strata}
    for c, (first, last) in spans.items():
        if (first, last) != (carrier.flow.axis.times[0], carrier.flow.axis.times[-1]):
            between = f"from {first:g} to {last:g} only" if first <= last else "at no time"
            logger.warning("the cells%s were trained %s; their paths end there", course.of(c), between)
    for start in np.unique(course.time[chosen]).tolist():
        rows = chosen[course.time[chosen] == start]
        for span in sorted({spans[c] for c in course.stratum[rows].tolist()}):
            of = np.isin(course.stratum[rows], [c for c, own in spans.items() if own == span])
            yield start, span, rows[of]


def _ways(start: float, grid: Floats, direction: Direction) -> tuple[list[float], list[float]]:
    """Times to run through from ``start``, backwards and forwards."""
    back, ahead = grid[grid < start][::-1].tolist(), grid[grid > start].tolist()
    return (
        [start, *back] if direction != "forward" else [start],
        [start, *ahead] if direction != "backward" else [start],
    )


@dataclass(frozen=True)
class _Bundle:
    """Paths that start at one time: rows of the cells, ascending times, coordinates (n, T, d) and weights (n, T)."""

    rows: NDArray[np.int64]
    times: Floats
    x: NDArray[np.float32]
    weight: Floats


def _bundle(carrier: Carrier, rows: NDArray[np.int64], back: list[float], ahead: list[float]) -> _Bundle:
    """The paths of some cells of one time, both ways."""
    before, after = carrier.along(rows, back), carrier.along(rows, ahead)
    times = np.array([*back[:0:-1], *ahead])
    states = np.concatenate([before.x[:0:-1], after.x]).swapaxes(0, 1).astype(np.float32)
    growth = np.concatenate([before.weight[:0:-1], after.weight]).T
    return _Bundle(rows, times, states, carrier.cells.weights[rows][:, None] * growth)


def _assemble(adata: AnnData, stored: Stored, course: Cells, bundles: list[_Bundle], n_samples: int) -> AnnData:
    import anndata

    recipe, rows = stored.recipe, np.concatenate([b.rows for b in bundles])
    lengths = np.repeat([len(b.times) for b in bundles], [len(b.rows) for b in bundles])
    names = names_of(adata, course, rows)
    sample = np.concatenate([np.arange(len(b.rows)) % n_samples for b in bundles]).astype(str)
    paths = names if n_samples == 1 else names + "-" + sample
    path = np.repeat(np.arange(len(rows)), lengths)
    time = np.concatenate([np.tile(b.times, len(b.rows)) for b in bundles])
    weight = np.concatenate([b.weight.ravel() for b in bundles])
    step = np.arange(len(path)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    _, moment = np.unique(time, return_inverse=True)
    source = pd.Categorical(adata.obs_names[course.sources[rows]].astype(str))
    columns = {
        "trajectory": pd.Categorical.from_codes(path, paths),
        "source": source[path],
        "weight": weight / np.bincount(moment, weight)[moment],
        recipe.time_key: time,
    }
    obs = pd.DataFrame(columns, index=paths[path] + "@" + step.astype(str))
    for key, labels in condition_columns(adata, stored, course, rows).items():
        obs[key] = labels[path]
    return anndata.AnnData(
        obs=obs, obsm={recipe.use_rep: np.concatenate([b.x.reshape(-1, b.x.shape[2]) for b in bundles])}
    )
