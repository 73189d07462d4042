"""Following a set of cells along the couplings, forwards to what it becomes and back to where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from thalweg._settings import logger
from thalweg.data.selection import Selection, select_cells
from thalweg.data.transitions import Transitions, read_transitions
from thalweg.data.writing import writable
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def follow(
    adata: AnnData,
    cells: Selection,
    time: float | None,
    source_time: float | None,
    key: str,
    key_added: str,
    copy: bool,
    *,
    direction: Literal["forward", "backward"],
) -> AnnData | None:
    """Carry a set of cells along the couplings; the arguments are those of `thalweg.tl.descendants`."""
    transitions = read_transitions(adata, key)
    chosen, start = _one_time(transitions, select_cells(adata, cells), source_time)
    forward = direction == "forward"
    column = np.full(adata.n_obs, np.nan)
    mass = np.isin(transitions.rows(start), chosen) * transitions.share(start)
    times, masses = [start], [float(mass.sum())]
    column[transitions.rows(start)] = mass / mass.sum()
    for t in _ends(transitions, start, time, forward):
        there = transitions.push(mass, start, t) if forward else transitions.pull(mass, start, t)
        if not there.sum() > 0:
            raise InputError(f"the cells have no {key_added} at time {t:g}: no couplings leave or reach them.")
        if not forward and there.sum() < 0.999 * mass.sum():
            logger.warning(
                "%.1f %% of the mass of the cells has no ancestors at time %g: nothing arrives there",
                100 * (1 - there.sum() / mass.sum()), t,
            )  # fmt: skip
        column[transitions.rows(t)] = there / there.sum()
        everyone = transitions.push(transitions.share(start), start, t).sum() if forward else 1.0
        times, masses = [*times, t], [*masses, float(there.sum() / everyone)]
    out = writable(adata, copy)
    out.obs[key_added] = column
    out.uns[key_added] = {"source_time": start, "times": np.array(times), "mass": np.array(masses), "direction": direction}  # fmt: skip  # noqa: E501
    logger.info("added obs[%r]: %d cells of time %g, %s", key_added, len(chosen), start, direction)
    return out if copy else None


def _one_time(
    transitions: Transitions, rows: NDArray[np.int64], source_time: float | None
) -> tuple[NDArray[np.int64], float]:
    found = np.unique(transitions.time[rows]).tolist()
    if source_time is not None and source_time not in found:
        raise InputError(f"source_time={source_time!r}: cells selects none of that time, but of {found}.")
    if source_time is None and len(found) > 1:
        raise InputError(f"cells selects cells of the times {found}; choose one of them with source_time=.")
    start = float(found[0] if source_time is None else source_time)
    return rows[transitions.time[rows] == start], start


def _ends(transitions: Transitions, start: float, time: float | None, forward: bool) -> list[float]:
    """Times to carry to."""
    if time is not None:
        later, earlier = ("after", "before") if forward else ("before", "after")
        if (time <= start) if forward else (time >= start):
            raise InputError(f"time={time:g} must be {later} the cells' own {start:g}; the other tool goes {earlier}.")
        return [float(time)]
    ends = [t for t in transitions.times.tolist() if transitions.joined(*((start, t) if forward else (t, start)))]
    if not ends:
        raise InputError(f"no couplings lead to a time {'after' if forward else 'before'} the cells' own {start:g}.")
    return ends
