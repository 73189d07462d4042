"""`tl.decode`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from thalweg._memory import check_memory
from thalweg._settings import logger, settings
from thalweg.data.expression import gene_columns
from thalweg.data.representation import find_representation, read_representation
from thalweg.tl._genes.gene_map import read_gene_map

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 4096  # cells decoded at once


def decode(
    adata: AnnData,
    reference: AnnData,
    *,
    genes: Sequence[str] | None = None,
    use_rep: str | None = None,
    layer: str | None = None,
    tolerance: float = 0.02,
) -> AnnData:
    """Gene expression of predicted cells, through the PCA that made the representation.

    With the loadings ``P`` and the means over the cells of ``reference``, ``x = x_mean + (z - z_mean) P'``: the point
    of the plane of the components with scores ``z``. What the components do not hold (most of the noise of single
    genes) is not in it, so decoded cells vary less than measured ones, gene by gene.

    That loadings, scores and expression belong together is checked on cells of ``reference``. The PCA may have been
    centred or not, and made of more cells than are left: the means used are those of ``reference`` itself.

    Parameters
    ----------
    adata
        Cells with coordinates, e.g. of `interpolate` or `trajectories`; it is not changed.
    reference
        The measured cells: expression, ``obsm`` with the representation, and ``varm`` with the loadings as
        ``sc.pp.pca`` writes them. Representations of `thalweg.pp.standardize` are led back to their PCA.
    genes
        Genes to decode, in this order; all that the PCA used by default.
    use_rep
        Key of ``obsm``; by default the one that made ``adata``, else the PCA that exists.
    layer
        Layer of ``reference`` that the PCA was made of; by default the one named by ``uns["pca"]``, else ``X``.
    tolerance
        Largest error of a component, relative to its spread, that counts as rounding in the check.

    Returns
    -------
    A new AnnData with the same cells: ``X`` the expression in the units that the PCA was made of (float32, shape
    ``(n_cells, n_genes)``; it may fall a little below zero), ``var`` that of the genes, and ``obs``, ``obsm`` and
    ``uns`` of ``adata``.

    Raises
    ------
    MissingKeyError
        If the representation, its loadings, the layer or a gene does not exist.
    InputError
        If loadings, scores and expression do not belong together (the message says what differs), or a gene took no
        part in the PCA.
    MemoryBudgetError
        If the result would exceed ``thalweg.settings.max_memory``.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.simulated(rng=0)
    >>> tw.tl.fit(adata, "time", rng=0)
    >>> cells = tw.tl.decode(tw.tl.interpolate(adata, 1.5), adata)
    """
    import anndata

    rep = find_representation(adata, use_rep or _made_with(adata))
    z = read_representation(adata, rep)
    to_genes = read_gene_map(reference, rep, z.shape[1], layer=layer, tolerance=tolerance)
    if genes is not None:
        to_genes = to_genes.only(gene_columns(reference, genes), reference.var_names.to_numpy())
    check_memory("decoded cells", len(z), len(to_genes.columns), 4, settings.max_memory, "name fewer with genes=")
    x = np.empty((len(z), len(to_genes.columns)), dtype=np.float32)
    for start in range(0, len(z), _BLOCK):
        x[start : start + _BLOCK] = to_genes.decode(z[start : start + _BLOCK])
    logger.info("decoded %d cells to %d genes through obsm[%r]", *x.shape, rep)
    return anndata.AnnData(
        x,
        obs=adata.obs.copy(),
        var=reference.var.iloc[to_genes.columns].copy(),
        obsm={k: v.copy() for k, v in adata.obsm.items()},
        uns=adata.uns.copy(),
    )


def _made_with(adata: AnnData) -> str | None:
    """The representation that a prediction says it lies in."""
    for key in ("interpolation", "trajectories"):
        entry = adata.uns.get(key)
        if isinstance(entry, Mapping) and "use_rep" in entry:
            return str(entry["use_rep"])
    return None
