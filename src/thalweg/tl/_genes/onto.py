"""New cells in the representation of others, by the loadings of their PCA, and why they may land elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.expression import Columns, Floats, dense, expression_matrix, row_blocks
from thalweg.data.recipe import Recipe
from thalweg.data.representation import read_representation
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows.query import Placed
from thalweg.tl._genes.gene_map import GeneMap, read_gene_map

if TYPE_CHECKING:
    from anndata import AnnData

LOSS = 0.1
"""Largest displacement that genes may cause by being absent, as a share of the spread of the reference cells."""
_SAME = 0.02  # of the widest spread of a coordinate: more than rounding changes
_SAMPLE = 1000  # cells by which the loss of genes is judged
_FEW = 200  # cells by which normalisation is judged, over all genes
_PLANE = 4000  # cells that a plane is made of
_ROUNDING = 1e-10  # of the variance: what a plane that holds everything leaves
_SCALED = 0.2  # share of negative values that only scaled expression has
_TOTALS = 1.5  # ratio of the cells' totals that another normalisation explains better than biology


def coordinates_of(
    adata: AnnData, reference: AnnData, recipe: Recipe, project: bool, layer: str | None
) -> tuple[Floats | None, GeneMap | None]:
    """Projected coordinates of new cells and the loadings behind them; None for those that stay as they are.

    Parameters
    ----------
    adata, reference
        New cells, and those of the fit.
    recipe
        Of the fit.
    project
        Whether to project at all.
    layer
        As of `thalweg.tl._genes.gene_map.read_gene_map`.

    Raises
    ------
    MissingKeyError
        If loadings or a layer do not exist.
    InputError
        If the cells cannot be projected, or have other coordinates already.
    """
    rep = str(recipe.use_rep)
    if rep == "X" and not adata.var_names.equals(reference.var_names):
        raise InputError(
            "the fit runs on X, whose columns are other genes in adata than in reference, or in another order; take "
            "adata[:, reference.var_names]."
        )
    if rep == "X" or not project:
        return None, None
    genes = read_reference(reference, rep, int(recipe.n_dims or 0), layer)
    x = project_onto(adata, reference, genes)
    if rep not in adata.obsm:
        return x, genes
    there = read_representation(adata, rep)
    sd = read_representation(reference, rep, recipe.n_dims).std(0).max()
    wide = there.shape[1] >= x.shape[1]
    if not wide or np.sqrt(np.square(there[:, : x.shape[1]] - x).mean(0)).max() > _SAME * sd:
        raise InputError(
            f"adata.obsm[{rep!r}] exists, and holds other coordinates than the loadings of the reference give (a PCA "
            f"of the new cells alone?). To place the cells by the loadings, remove it: del adata.obsm[{rep!r}]. If it "
            "is in the space of the fit (integrated with the reference), pass project=False."
        )
    return None, genes


def read_reference(reference: AnnData, use_rep: str, n_dims: int, layer: str | None) -> GeneMap:
    """The map between a representation and genes; arguments and errors as of `read_gene_map`.

    Raises
    ------
    MissingKeyError
        If there are no loadings.
    InputError
        If loadings, coordinates and expression of the reference do not belong together.
    """
    try:
        return read_gene_map(reference, use_rep, n_dims, layer=layer)
    except (InputError, MissingKeyError) as error:
        raise type(error)(
            f"the reference cannot place new cells. {error} If obsm[{use_rep!r}] was integrated (Harmony, scVI), bring "
            f"the new cells into it by that method, as adata.obsm[{use_rep!r}], and pass project=False."
        ) from None


def project_onto(adata: AnnData, reference: AnnData, genes: GeneMap) -> Floats:
    """Coordinates of new cells, shape ``(n_cells, n_dims)``; genes that they lack stand at the reference's mean.

    Parameters
    ----------
    adata
        New cells.
    reference
        Cells with the PCA.
    genes
        Its map, of `read_reference`.

    Raises
    ------
    MissingKeyError
        If the layer of the PCA does not exist.
    InputError
        If a name of a gene repeats, genes are absent that matter, or expression holds NaN or infinite values.
    """
    matrix = expression_matrix(adata, genes.layer)
    columns = _columns(adata, reference, genes)
    there = columns >= 0
    if not there.all():
        _judge_absent(reference, genes, there)
    out, bad = np.empty((adata.n_obs, len(genes.origin))), 0
    start = 0
    for block in row_blocks(matrix, columns[there]):
        x = np.tile(genes.mean, (len(block), 1))
        x[:, there] = block
        out[start : start + len(block)] = genes.encode(x)
        bad += int((~np.isfinite(block).all(1)).sum())
        start += len(block)
    if bad:
        raise InputError(
            f"the expression of {bad} of {adata.n_obs} new cells ({_place(genes)}) holds NaN or infinite values in "
            "genes of the PCA; mend it, or leave these cells out."
        )
    return out


def placed_on(
    adata: AnnData, reference: AnnData, genes: GeneMap, held: NDArray[np.bool_]
) -> tuple[Placed, Placed] | None:
    """New cells and those of the reference on the plane of a PCA that the cells held back had no part in.

    Their own PCA will not do: to its plane they are nearer than any other cells are. The distance from the plane tells
    cells of a type that the PCA has not seen. On the plane these land in the middle of the others, as their own genes
    have no part in it.

    Parameters
    ----------
    adata, reference, genes
        As in `project_onto`.
    held
        Reference cells that are held back, shape ``(n_reference,)``.

    Returns
    -------
    New cells and reference; None where the PCA leaves nothing out.
    """
    from sklearn.decomposition import PCA

    columns = _columns(adata, reference, genes)
    there = columns >= 0
    matrix, n_dims = expression_matrix(reference, genes.layer), len(genes.origin)
    proper = np.flatnonzero(~held)
    proper = proper[np.unique(np.linspace(0, len(proper) - 1, _PLANE).astype(int))]
    x = dense(matrix[proper], genes.columns[there])
    if n_dims >= min(x.shape):
        return None
    plane = PCA(n_dims, svd_solver="randomized", random_state=0).fit(x)
    rounding = _ROUNDING * x.var(0).sum()

    def placed(matrix: Any, columns: Columns) -> Placed:
        on, off = [], []
        for block in row_blocks(matrix, columns):
            on.append(plane.transform(block))
            square = np.square(block - plane.inverse_transform(on[-1])).sum(1)
            off.append(np.where(square > rounding, square, 0.0))
        return Placed(np.concatenate(on), np.concatenate(off))

    return placed(expression_matrix(adata, genes.layer), columns[there]), placed(matrix, genes.columns[there])


def why_elsewhere(adata: AnnData, reference: AnnData, genes: GeneMap) -> str:
    """What sets the expression of new cells apart from that of the reference, in a sentence; empty if nothing seen."""
    shared = adata.var_names.intersection(reference.var_names)
    x, known = (
        dense(
            expression_matrix(a, genes.layer)[np.unique(np.linspace(0, a.n_obs - 1, _FEW).astype(int))],
            a.var_names.get_indexer(shared),
        )
        for a in (adata, reference)
    )
    where = _place(genes)
    if (x == np.rint(x)).all() and not (known == np.rint(known)).all():
        return f"Their {where} holds whole numbers only, as counts are, and that of the reference does not."
    scaled = [bool((m < 0).mean() > _SCALED) for m in (x, known)]
    if scaled[0] != scaled[1]:
        one, other = ("Their", "that of the reference") if scaled[0] else ("The reference's", "theirs")
        return (
            f"{one} {where} has negative values, as after sc.pp.scale, and {other} has not: scale both by the means "
            "and standard deviations of the reference, or neither."
        )
    if any(scaled):
        return ""
    totals = [float(np.median(np.expm1(np.minimum(m, 50)).sum(1))) for m in (x, known)]
    if max(totals) > _TOTALS * min(totals):
        return (
            f"Over the genes that both have they sum to {totals[0]:.3g} (median, after expm1), the reference's cells "
            f"to {totals[1]:.3g}: normalise both to one total, as by sc.pp.normalize_total(adata, target_sum=1e4)."
        )
    return ""


def _columns(adata: AnnData, reference: AnnData, genes: GeneMap) -> Columns:
    """Column of each gene of the PCA in the new cells; -1 where they lack it."""
    for name, names in (("adata", adata.var_names), ("reference", reference.var_names)):
        if names.has_duplicates:
            raise InputError(
                f"{name}.var_names holds {int(names.duplicated().sum())} names of genes twice, so genes cannot be "
                f"found by name; run {name}.var_names_make_unique(), or keep one of each."
            )
    columns: Columns = adata.var_names.get_indexer(reference.var_names[genes.columns])
    return columns


def _judge_absent(reference: AnnData, genes: GeneMap, there: NDArray[np.bool_]) -> None:
    """Warn of genes that the new cells lack, or refuse if the reference's own cells would move without them."""
    names = reference.var_names[genes.columns[~there]]
    few = ", ".join(map(str, names[:10])) + (", ..." if len(names) > 10 else "")
    rows = np.unique(np.linspace(0, reference.n_obs - 1, _SAMPLE).astype(int))
    x = dense(expression_matrix(reference, genes.layer)[rows], genes.columns)
    whole, kept = genes.encode(x), genes.encode(np.where(there, x, genes.mean))
    loss = float(np.sqrt(np.square(whole - kept).sum() / np.square(whole - genes.origin).sum()))
    what = f"the new cells lack {len(names)} of the {len(there)} genes of the PCA ({few})"
    if not there.any() or loss > LOSS:
        raise InputError(
            f"{what}. Without them the reference's own cells would move by {loss:.2g} of their spread (limit "
            f"{LOSS:g}). Are names of one kind in both, symbols or identifiers? Bring the genes back (zeros where they "
            "were measured and not seen), or fit again on a PCA of the genes that both have."
        )
    logger.warning(
        "%s; they stand at the mean of the reference, which moves its own cells by %.2g of their spread", what, loss
    )


def _place(genes: GeneMap) -> str:
    return "X" if genes.layer is None else f"layers[{genes.layer!r}]"
