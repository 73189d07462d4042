"""A part of a course as an AnnData of its own, for the verbs that fit it again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg.data.cells import Cells
from thalweg.data.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

REP, TIME = "X_part", "time"
_LABEL, _WEIGHT, _RATE, _REPLICATE = "label:", "weight", "rate", "replicate"


def some(cells: Cells, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most so many rows of the AnnData of each time and condition, in order; shared populations are one."""
    taken = np.zeros(int(cells.sources.max()) + 1, dtype=bool)
    for condition in cells.strata:
        for t in cells.times_of(condition).tolist():
            rows = cells.sources[cells.rows(t, condition)]
            if not taken[rows].any():
                taken[rng.permutation(rows)[:n]] = True
    return np.flatnonzero(taken)


def part(adata: AnnData, cells: Cells, recipe: Recipe, rows: NDArray[np.int64]) -> AnnData:
    """Rows of the AnnData with their times as numbers, and what else `keys` names, but no genes."""
    from anndata import AnnData

    cells = cells.take(rows)  # a row stands first where the AnnData has it
    obs = pd.DataFrame({TIME: cells.time, _WEIGHT: cells.weights}, index=adata.obs_names[rows])
    for key in (*recipe.condition_keys, *recipe.within_keys):
        obs[_LABEL + key] = adata.obs[key].array[rows]
    if cells.rates is not None:
        obs[_RATE] = cells.rates
    if cells.replicate is not None:
        obs[_REPLICATE] = cells.replicate
    return AnnData(obs=obs, obsm={REP: cells.x})


def keys(cells: Cells, recipe: Recipe) -> dict[str, Any]:
    """The columns of such a part, as arguments of `thalweg.tl.fit`."""
    return {
        "use_rep": REP,
        "weight_key": _WEIGHT,
        "condition_key": [_LABEL + key for key in recipe.condition_keys] or None,
        "baseline": recipe.baseline,
        "couple_within": [_LABEL + key for key in recipe.within_keys] or None,
        "growth_key": None if cells.rates is None else _RATE,
        "replicate_key": None if cells.replicate is None else _REPLICATE,
    }
