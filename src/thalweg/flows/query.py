"""New cells beside the cells of a fit: which of its populations lie at their time, and whether they lie among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core.conformal import conformal_p, held_back, rank_p
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


@dataclass(frozen=True)
class Placed:
    """Cells and a plane that the cells held back had no part in.

    Attributes
    ----------
    x
        Coordinates on the plane, shape ``(n, d)``.
    off
        Distance from it, in any unit that orders cells, shape ``(n,)``.
    """

    x: Floats
    off: Floats

    def at(self, rows: Rows) -> Placed:
        """Some of the cells."""
        return Placed(self.x[rows], self.off[rows])


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


def held_cells(known: Cells) -> NDArray[np.bool_]:
    """Which cells of a fit are held back to judge new ones by, shape ``(n,)``."""
    out = np.zeros(len(known.x), dtype=bool)
    for condition in np.unique(known.condition).tolist():
        for t in np.unique(known.time[known.condition == condition]).tolist():
            rows = np.flatnonzero((known.condition == condition) & (known.time == t))
            out[rows[held_back(len(rows))]] = True
    return out


def p_inside(
    new: Cells, known: Cells, alpha: float, n_neighbors: int, placed: tuple[Placed, Placed] | None = None
) -> Floats:
    """P value of each new cell that it is one more of the fit's cells of its time and condition, shape ``(n,)``.

    With ``placed`` it is the smaller of two p values, twice (Bonferroni): of the distance to the cells of the fit on
    the plane, and of the distance from the plane. Between two times of the fit it is the larger of those by either.

    Parameters
    ----------
    new, known
        As in `beside`.
    alpha
        Level that must be within reach.
    n_neighbors
        As in `thalweg.core.conformal.conformal_p`.
    placed
        New and known cells on a plane; by default they are judged by their coordinates alone.

    Raises
    ------
    InputError
        If a time lies outside, or a population has too few cells for a p value as small as ``alpha``.
    """
    here, there = (new.x, known.x) if placed is None else (placed[0].x, placed[1].x)
    out, n_scores = np.empty(len(new.x)), 1 if placed is None else 2
    for group in beside(new, known):
        by = []
        for rows in group.populations:
            held = rows[held_back(len(rows))]
            if n_scores > alpha * (len(held) + 1):
                least = np.ceil(1e3 * n_scores / (len(held) + 1)) / 1e3
                raise InputError(
                    f"the fit has {len(rows)} cells beside the new ones of {group.where}; no cell can be told to lie "
                    f"outside of so few at alpha={alpha:g}. Give alpha={least:g} or more."
                )
            p = conformal_p(here[group.rows], there[rows], n_neighbors)
            if placed is not None:
                p_off = rank_p(placed[0].off[group.rows], placed[1].off[held])
                p = np.minimum(2 * np.minimum(p, p_off), 1.0)
            by.append(p)
        out[group.rows] = np.max(by, axis=0)
    return out
