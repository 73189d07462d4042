"""Cells by the recipe of a stored fit, and a warning if they are not those that it was fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thalweg._settings import logger
from thalweg.data.cells import Cells, Rows, read_cells
from thalweg.data.design import JOINT
from thalweg.data.recipe import Recipe
from thalweg.flows.store import Stored

if TYPE_CHECKING:
    from anndata import AnnData


def cells_of(adata: AnnData, stored: Stored, recipe: Recipe | None = None) -> Cells:
    """Cells as the fit reads them, or as ``recipe`` does.

    Errors are those of `thalweg.data.cells.read_cells`. Cells that the fit remembers by name and that lie elsewhere now
    draw a warning, for what it says of them is wrong.
    """
    cells = read_cells(adata, stored.recipe if recipe is None else recipe)
    if stored.seen is not None:
        moved, known = stored.seen.moved(cells.x[: adata.n_obs], adata.obs_names.to_numpy())
        if moved:
            logger.warning(
                "%d of %d cells that the fit remembers have other coordinates in %s now than when it was fitted: they "
                "were computed again, or these are other cells of the same names. What the fit says of them is wrong; "
                "bring the coordinates back, or fit again",
                moved, known, cells.use_rep,
            )  # fmt: skip
    return cells


def names_of(adata: AnnData, cells: Cells, rows: Rows) -> pd.Index:
    """Names of some cells of a course; one that stands in several conditions has that of the condition behind it."""
    names = pd.Index(adata.obs_names[cells.sources[rows]].astype(str))
    if cells.origin is None:
        return names
    several = np.bincount(cells.origin)[cells.origin[rows]] > 1
    of = np.array(cells.stratum_names)[cells.stratum[rows]]
    return pd.Index([f"{name}, {arm}" if s else name for name, arm, s in zip(names, of, several, strict=True)])


def condition_columns(adata: AnnData, stored: Stored, cells: Cells, rows: Rows) -> dict[str, Any]:
    """The columns of the conditions for some cells of a course; a cell of the baseline has the labels of its arm."""
    keys = stored.recipe.condition_keys
    if stored.recipe.baseline is None:
        return {key: adata.obs[key].array[cells.sources[rows]] for key in keys}
    names = [cells.conditions[c] for c in cells.condition[rows]]
    parts = [name.split(JOINT) if len(keys) > 1 else [name] for name in names]
    return {key: pd.Categorical([part[k] for part in parts]) for k, key in enumerate(keys)}
