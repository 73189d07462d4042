"""A part of a course as an AnnData of its own, for the verbs that fit it again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.cells import Cells

if TYPE_CHECKING:
    from anndata import AnnData

REP, TIME = "X_part", "time"
_CONDITION, _WEIGHT, _RATE, _REPLICATE = "condition", "weight", "rate", "replicate"


def some(cells: Cells, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most so many rows of each time and condition, in order."""
    groups = [cells.rows(t, c) for c in cells.strata for t in cells.times_of(c).tolist()]
    return np.sort(np.concatenate([rng.permutation(rows)[:n] for rows in groups]))


def part(cells: Cells, names: pd.Index, rows: NDArray[np.int64]) -> AnnData:
    """The rows with their times as numbers, their weights, conditions, rates and replicates, and no genes."""
    from anndata import AnnData

    cells = cells.take(rows)
    obs = pd.DataFrame({TIME: cells.time, _WEIGHT: cells.weights}, index=names[rows])
    if cells.conditions:
        obs[_CONDITION] = pd.Categorical(np.array(cells.conditions)[cells.condition])
    if cells.rates is not None:
        obs[_RATE] = cells.rates
    if cells.replicate is not None:
        obs[_REPLICATE] = cells.replicate
    return AnnData(obs=obs, obsm={REP: cells.x})


def keys(cells: Cells) -> dict[str, Any]:
    """The columns of such a part, as arguments of `thalweg.tl.fit`."""
    return {
        "use_rep": REP,
        "weight_key": _WEIGHT,
        "condition_key": _CONDITION if cells.conditions else None,
        "growth_key": None if cells.rates is None else _RATE,
        "replicate_key": None if cells.replicate is None else _REPLICATE,
    }
