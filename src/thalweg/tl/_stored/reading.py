"""Cells by the recipe of a stored fit, and a warning if they are not those that it was fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg._settings import logger
from thalweg.data.cells import Cells, read_cells
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
        moved, known = stored.seen.moved(cells.x, adata.obs_names.to_numpy())
        if moved:
            logger.warning(
                "%d of %d cells that the fit remembers have other coordinates in %s now than when it was fitted: they "
                "were computed again, or these are other cells of the same names. What the fit says of them is wrong; "
                "bring the coordinates back, or fit again",
                moved, known, cells.use_rep,
            )  # fmt: skip
    return cells
