"""What a fit has seen of its cells, by which it can tell later whether cells are still those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.data.cells import Cells

Floats = NDArray[np.float64]
Names = NDArray[Any]
_FEW = 3  # cells of each time that are kept as they are
_MOVED = 0.01  # in the widest standard deviation of a time; more than rounding changes, float16 included


@dataclass(frozen=True)
class Seen:
    """A few cells of each time, as they were.

    Attributes
    ----------
    names
        Names of the cells, shape ``(n_times, k)``.
    coordinates
        Of the same cells, shape ``(n_times, k, d)``.
    sd
        Standard deviation of each coordinate over all cells of a time, shape ``(n_times, d)``.
    """

    names: Names
    coordinates: Floats
    sd: Floats

    def moved(self, x: Floats, names: Names) -> tuple[int, int]:
        """How many of these cells lie elsewhere now, and how many of them are there at all.

        Parameters
        ----------
        x, names
            Coordinates ``(n, d)`` and names ``(n,)`` of the cells now. Where names repeat, nothing is known of any.
        """
        place = dict(zip(names.tolist(), range(len(names)), strict=True))
        if len(place) < len(names):
            return 0, 0
        known = np.array([str(name) in place for name in self.names.ravel()], dtype=bool)
        if not known.any():
            return 0, 0
        now = x[[place[str(name)] for name in self.names.ravel()[known]]]
        unit = np.maximum(np.repeat(self.sd.max(1), self.names.shape[1])[known, None], 1e-6)
        away = np.abs(now - self.coordinates.reshape(-1, x.shape[1])[known]) > _MOVED * unit
        return int(away.any(1).sum()), int(known.sum())


def pack_seen(cells: Cells, names: Names) -> dict[str, Names]:
    """As ``uns`` can hold it: number, mean, spread and a few of the cells of each time."""
    rows = [cells.rows(t) for t in cells.times.tolist()]
    few = [r[np.linspace(0, len(r) - 1, _FEW).astype(int)] for r in rows]
    return {
        "n": np.array([len(r) for r in rows]),
        "mean": np.stack([cells.x[r].mean(0) for r in rows]),
        "sd": np.stack([cells.x[r].std(0) for r in rows]),
        "names": np.stack([names[cells.sources[r]] for r in few]).astype(str),
        "coordinates": np.stack([cells.x[r] for r in few]),
    }


def read_seen(entry: Mapping[str, Any]) -> Seen | None:
    """What `pack_seen` wrote, checked by `thalweg.flows.store_checks`; None in fits of earlier releases."""
    if not entry:
        return None
    names, coordinates, sd = (np.asarray(entry[name]) for name in ("names", "coordinates", "sd"))
    if names.shape != coordinates.shape[:2]:
        raise ValueError(f"seen has {names.shape} names for the coordinates {coordinates.shape}")
    return Seen(names, coordinates, sd)
