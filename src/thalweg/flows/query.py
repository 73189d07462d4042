"""New cells beside the cells of a fit: which of its populations lie at their time, and whether they lie among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core.conformal import conformal_p, smallest_p
from thalweg.data.cells import Cells, Rows
from thalweg.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Beside:
    """New cells of one time and condition, and the populations of the fit at that time.

    Attributes
    ----------
    rows
        Rows of the new cells.
    populations
        Rows of the fit's cells at the same time, of the same condition. Between two of its times, those of either.
    shares
        What each of them counts: 1, or by how near its time is.
    where
        Time and condition, in words.
    """

    rows: Rows
    populations: tuple[Rows, ...]
    shares: tuple[float, ...]
    where: str


def beside(new: Cells, known: Cells) -> Iterator[Beside]:
    """Each time and condition of the new cells.

    Parameters
    ----------
    new, known
        New cells and those of the fit, read by one recipe.

    Raises
    ------
    InputError
        If a time lies outside those that the fit has seen, of the condition.
    """
    for condition in np.unique(new.condition).tolist():
        of = f" of condition {new.conditions[condition]!r}" if new.conditions else ""
        own, there = new.condition == condition, known.condition == condition
        times = np.unique(known.time[there])
        for t in np.unique(new.time[own]).tolist():
            rows = np.flatnonzero(own & (new.time == t))
            if not len(times) or not times[0] <= t <= times[-1]:
                seen = f"{times[0]:g} to {times[-1]:g}" if len(times) else "none"
                raise InputError(
                    f"{len(rows)} cells have the time {t:g}{of}, outside the times that the fit has seen{of}: {seen}. "
                    "It knows nothing of them; leave them out, or fit again with cells of that time."
                )
            after = int(np.searchsorted(times, t))
            around = [t] if times[after] == t else times[after - 1 : after + 1].tolist()
            nearness = [1.0] if len(around) == 1 else [(around[1] - t), (t - around[0])]
            yield Beside(
                rows,
                tuple(np.flatnonzero(there & (known.time == one)) for one in around),
                tuple(one / sum(nearness) for one in nearness),
                f"time {t:g}{of}",
            )


def p_inside(new: Cells, known: Cells, alpha: float, n_neighbors: int) -> Floats:
    """P value of each new cell that it is one more of the fit's cells of its time and condition, shape ``(n,)``.

    Between two times of the fit it is the larger of the two p values.

    Parameters
    ----------
    new, known
        As in `beside`.
    alpha
        Level that must be within reach.
    n_neighbors
        As in `thalweg.core.conformal.conformal_p`.

    Raises
    ------
    InputError
        If a time lies outside, or a population has too few cells for a p value as small as ``alpha``.
    """
    out = np.empty(len(new.x))
    for group in beside(new, known):
        for population in group.populations:
            smallest = smallest_p(len(population))
            if smallest > alpha:
                raise InputError(
                    f"the fit has {len(population)} cells beside the new ones of {group.where}; no cell can be told to "
                    f"lie outside of so few at alpha={alpha:g}. Give alpha={np.ceil(1e3 * smallest) / 1e3:g} or more."
                )
        by = [conformal_p(new.x[group.rows], known.x[rows], n_neighbors) for rows in group.populations]
        out[group.rows] = np.max(by, axis=0)
    return out
