"""Remarks on a time course that can be read and is probably not what was meant. Nothing is refused or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]

FEW = 10  # cells of a time point below which its population is hardly known
MANY_COLUMNS = 500  # more than any PCA has in practice


def remark_on(adata: AnnData, use_rep: str, x: Floats, time_key: str, time: Floats) -> None:
    """Log a warning for each thing that a careful colleague would ask about.

    Parameters
    ----------
    adata
        Cells.
    use_rep, x
        The representation and its coordinates, shape ``(n, d)``.
    time_key, time
        The time column and the time of each cell, shape ``(n,)``.
    """
    _populations(time)
    _names(adata)
    _coordinates(use_rep, x)
    _batches(adata, time_key, time)


def _populations(time: Floats) -> None:
    for value, count in zip(*np.unique(time, return_counts=True), strict=True):
        if count == 1:
            logger.warning("time %g has a single cell; its population is a point", value)
        elif count < FEW:
            logger.warning(
                "time %g has %d cells only, too few to know its population; leave it out, or give it the number of a "
                "neighbouring time in time_map=",
                value,
                count,
            )


def _names(adata: AnnData) -> None:
    repeated = int(adata.obs_names.duplicated().sum())
    if repeated:
        logger.warning(
            "%d of the obs_names repeat an earlier one; results name their source cells by obs_names, so make them "
            "unique: adata.obs_names_make_unique()",
            repeated,
        )


def _coordinates(use_rep: str, x: Floats) -> None:
    # Rows are enough to tell; a matrix of genes is large.
    sample = x[:: max(1, len(x) // 1000)]
    if sample.max(initial=0.0) > 1 and not (sample < 0).any() and (sample == np.rint(sample)).all():
        logger.warning(
            "use_rep=%r holds whole numbers >= 0 only, which looks like raw counts; distances between raw counts show "
            "sequencing depth before biology. Normalise, log-transform and reduce first: sc.pp.normalize_total, "
            "sc.pp.log1p, sc.pp.pca",
            use_rep,
        )
    elif x.shape[1] > MANY_COLUMNS:
        logger.warning(
            "use_rep=%r has %d columns, which looks like genes; distances over so many noisy columns say little. "
            "Reduce first: sc.pp.pca",
            use_rep,
            x.shape[1],
        )


def _batches(adata: AnnData, time_key: str, time: Floats) -> None:
    for name in adata.obs.columns:
        if name == time_key or "batch" not in str(name).lower():
            continue
        column = adata.obs[name]
        if column.ndim != 1 or not 1 < column.nunique() <= len(np.unique(time)):
            continue
        times = column.to_frame("batch").assign(time=time).groupby("batch", observed=True)["time"].nunique()
        if (times == 1).all():
            logger.warning(
                "every batch in obs[%r] was taken at a single time, so a batch effect cannot be told from a change "
                "over time; keep that in mind, or correct with something the times share (controls, anchors)",
                name,
            )
