"""Remarks on a time course that can be read and is probably not what was meant. Nothing is refused or changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Populations: TypeAlias = Mapping[str, Floats]

FEW = 10  # cells of a time point below which its population is hardly known
_FEW_BY_WEIGHT, _SHARE_BY_WEIGHT = 50, 0.5  # effective cells, and what share of all cells they are
MANY_COLUMNS = 500  # more than any PCA has in practice


class Remark(NamedTuple):
    """What a careful colleague would ask about."""

    kind: Literal["few cells", "weights", "names", "counts", "genes", "batches"]
    text: str


def remark_on(adata: AnnData, use_rep: str, x: Floats, time_key: str, time: Floats, populations: Populations) -> None:
    """Log each of the remarks as a warning; arguments as of `remarks`."""
    for one in remarks(adata, use_rep, x, time_key, time, populations):
        logger.warning("%s", one.text)


def remarks(
    adata: AnnData, use_rep: str, x: Floats, time_key: str, time: Floats, populations: Populations
) -> list[Remark]:
    """What a careful colleague would ask about.

    Parameters
    ----------
    adata
        Cells.
    use_rep, x
        The representation and its coordinates, shape ``(n, d)``.
    time_key, time
        The time column and the time of each cell, shape ``(n,)``.
    populations
        The weights of the cells of each population, by the words for it.
    """
    batches = _batches(adata, time_key, time)
    return [*_populations(populations), *_names(adata), *_coordinates(use_rep, x), *batches]


def _populations(populations: Populations) -> Iterator[Remark]:
    for where, weights in populations.items():
        yield from _few(where, len(weights))
        w = weights / weights.max()  # squares stay finite
        effective = float(w.sum() ** 2 / (w @ w))
        if effective < min(_FEW_BY_WEIGHT, _SHARE_BY_WEIGHT * len(w)):
            yield Remark(
                "weights",
                f"by their weights the {len(w)} cells of {where} count as {effective:.0f}: a few heavy ones decide; "
                "check the column of weights, or leave it out",
            )


def _few(where: str, count: int) -> Iterator[Remark]:
    if count == 1:
        yield Remark("few cells", f"{where} has a single cell; its population is a point")
    elif count < FEW:
        yield Remark(
            "few cells",
            f"{where} has {count} cells only, too few to know its population; leave it out, or give it the "
            "number of a neighbouring time in time_map=",
        )


def _names(adata: AnnData) -> Iterator[Remark]:
    repeated = int(adata.obs_names.duplicated().sum())
    if repeated:
        yield Remark(
            "names",
            f"{repeated} of the obs_names repeat an earlier one; results name their source cells by obs_names, so make "
            "them unique: adata.obs_names_make_unique()",
        )


def _coordinates(use_rep: str, x: Floats) -> Iterator[Remark]:
    # Rows are enough to tell; a matrix of genes is large.
    sample = x[:: max(1, len(x) // 1000)]
    if sample.max(initial=0.0) > 1 and not (sample < 0).any() and (sample == np.rint(sample)).all():
        yield Remark(
            "counts",
            f"use_rep={use_rep!r} holds whole numbers >= 0 only, which looks like raw counts; distances between raw "
            "counts show sequencing depth before biology. Normalise, log-transform and reduce first: "
            "sc.pp.normalize_total, sc.pp.log1p, sc.pp.pca",
        )
    elif x.shape[1] > MANY_COLUMNS:
        yield Remark(
            "genes",
            f"use_rep={use_rep!r} has {x.shape[1]} columns, which looks like genes; distances over so many noisy "
            "columns say little. Reduce first: sc.pp.pca",
        )


def _batches(adata: AnnData, time_key: str, time: Floats) -> Iterator[Remark]:
    for name in adata.obs.columns:
        if name == time_key or "batch" not in str(name).lower():
            continue
        column = adata.obs[name]
        if column.ndim != 1 or not 1 < column.nunique() <= len(np.unique(time)):
            continue
        times = column.to_frame("batch").assign(time=time).groupby("batch", observed=True)["time"].nunique()
        if (times == 1).all():
            yield Remark(
                "batches",
                f"every batch in obs[{name!r}] was taken at a single time, so a batch effect cannot be told from a "
                "change over time; keep that in mind, or correct with something the times share (controls, anchors)",
            )
