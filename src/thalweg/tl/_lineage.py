"""`tl.descendants` and `tl.ancestors`: what a set of cells becomes, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from thalweg._settings import logger
from thalweg.data.transitions import Transitions, read_transitions
from thalweg.errors import InputError
from thalweg.tl._cells import Selection, select_cells
from thalweg.tl._store import writable

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def descendants(
    adata: AnnData,
    cells: Selection,
    time: float | None = None,
    *,
    source_time: float | None = None,
    key: str = "transition",
    key_added: str = "descendants",
    copy: bool = False,
) -> AnnData | None:
    """Carry a set of cells forward along the couplings, to its descendants.

    Parameters
    ----------
    adata
        AnnData with couplings, see `transition`.
    cells
        Cells of one observed time: names, a boolean mask, or a mapping from columns of ``obs`` to values, such as
        ``{"cell_type": "HSC"}``.
    time
        Later observed time; by default all later ones.
    source_time
        Observed time whose cells are meant, where ``cells`` selects cells of several.
    key
        Key of ``obsp`` with the couplings.
    key_added
        Column of ``obs`` and key of ``uns`` to write.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : float
        At each time reached the probability that a random descendant is this cell, summing to one; at the time of the
        set the weights of its cells, zero for the other cells; NaN at times not asked for.
    ``adata.uns[key_added]`` : dict
        ``source_time``, ``times``, and for each time the ``mass`` of the set as a share of the population: it changes
        with growth.

    Raises
    ------
    MissingKeyError
        If there are no couplings, or a cell or column does not exist.
    InputError
        If ``cells`` lie at several times and ``source_time`` is not given, or no couplings lead to ``time``.
    """
    return _follow(adata, cells, time, source_time, key, key_added, copy, direction="forward")


def ancestors(
    adata: AnnData,
    cells: Selection,
    time: float | None = None,
    *,
    source_time: float | None = None,
    key: str = "transition",
    key_added: str = "ancestors",
    copy: bool = False,
) -> AnnData | None:
    """Carry a set of cells back along the couplings, to its ancestors.

    By Bayes, with the weights of the earlier cells as the prior. A cell of the set that nothing arrives at has no
    ancestors and does not take part; the share of such cells is logged.

    Parameters
    ----------
    adata, cells, source_time, key, copy
        As in `descendants`.
    time
        Earlier observed time; by default all earlier ones.
    key_added
        Column of ``obs`` and key of ``uns`` to write.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : float
        At each time the probability that a random ancestor is this cell, summing to one; at the time of the set the
        weights of its cells, zero for the other cells; NaN at times not asked for.
    ``adata.uns[key_added]`` : dict
        ``source_time``, ``times``, and for each time the ``mass`` of the set that has ancestors, as a share of the
        population.

    Raises
    ------
    MissingKeyError
        If there are no couplings, or a cell or column does not exist.
    InputError
        If ``cells`` lie at several times and ``source_time`` is not given, no couplings come from ``time``, or nothing
        arrives at any of the cells.
    """
    return _follow(adata, cells, time, source_time, key, key_added, copy, direction="backward")


def _follow(
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
