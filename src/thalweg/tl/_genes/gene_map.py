r"""From a representation back to genes, through the PCA that made it.

With the loadings ``P`` of an orthogonal projection ``z = (x - mu) P`` and the means over the cells at hand,

.. math:: \hat x = \bar x + (z - \bar z) P^T, \qquad \dot x = \dot z P^T .

For any ``mu`` this is the point of the plane of the components with scores ``z`` that is nearest to the cells' mean, so
it holds for a PCA without centring (``zero_center=False``) and after cells were left out, whose mean is no longer
``mu``. Whether ``P``, ``z`` and ``x`` belong together is not taken on trust: on cells of the data,
``(x - x_mean) P = z - z_mean`` has to hold in every component.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.data.expression import Columns, Floats, dense, expression_matrix, row_blocks
from thalweg.data.representation import find_representation, read_representation
from thalweg.errors import InputError, MissingKeyError
from thalweg.tl._genes.mismatch import component_error, reason

if TYPE_CHECKING:
    from anndata import AnnData

_CHECKED = 1000  # cells on which the loadings are checked


@dataclass(frozen=True)
class GeneMap:
    """An affine map from a representation to the genes of its PCA.

    Attributes
    ----------
    columns
        Columns of ``var`` that the PCA used, shape ``(n_genes,)``.
    loadings
        Genes per unit of the representation, shape ``(n_genes, n_dims)``.
    origin
        Mean of the representation over the cells, shape ``(n_dims,)``.
    mean
        Mean expression over the same cells, shape ``(n_genes,)``.
    sd
        Units of the PCA in one unit of the representation, shape ``(n_dims,)``: 1 for the PCA itself.
    layer
        Layer that the PCA was made of; None for ``X``.
    """

    columns: Columns
    loadings: Floats
    origin: Floats
    mean: Floats
    sd: Floats
    layer: str | None

    def encode(self, x: Floats) -> Floats:
        """Coordinates of cells by their expression, shape ``(n, n_genes)``, as the PCA gives them."""
        return self.origin + (x - self.mean) @ (self.loadings / self.sd**2)

    def decode(self, z: Floats) -> Floats:
        """Expression at coordinates of shape ``(n, n_dims)``, shape ``(n, n_genes)``."""
        return self.mean + (z - self.origin) @ self.loadings.T

    def velocity(self, v: Floats) -> Floats:
        """Velocity of expression for velocities of the coordinates, shape ``(n, n_genes)``."""
        return v @ self.loadings.T

    def only(self, columns: Columns, names: NDArray[np.object_]) -> GeneMap:
        """The map to some of its genes.

        Raises
        ------
        InputError
            If the PCA did not use one of them.
        """
        place = {int(column): i for i, column in enumerate(self.columns)}
        unused = [str(names[c]) for c in columns if int(c) not in place]
        if unused:
            raise InputError(
                f"genes {unused[:10]} took no part in the PCA (their loadings are zero), so nothing is known of "
                f"them ({len(unused)} in all); it used {len(self.columns)} genes. Run sc.pp.pca with "
                "these genes in its mask."
            )
        rows = np.array([place[int(c)] for c in columns], dtype=np.intp)
        return replace(self, columns=columns, loadings=self.loadings[rows], mean=self.mean[rows])


def read_gene_map(
    adata: AnnData, use_rep: str, n_dims: int | None = None, *, layer: str | None = None, tolerance: float = 0.02
) -> GeneMap:
    """Read and check the map from a representation to genes.

    Parameters
    ----------
    adata
        Cells with expression, the representation and the loadings of its PCA.
    use_rep
        Key of ``obsm``: a PCA, or what `thalweg.pp.standardize` made of one.
    n_dims
        Number of leading columns; all by default.
    layer
        Layer the PCA was made of; by default the one that ``uns`` names, else ``adata.X``.
    tolerance
        Largest error of a component, relative to its spread, that counts as rounding.

    Raises
    ------
    MissingKeyError
        If the representation or its loadings do not exist.
    InputError
        If loadings, representation and expression do not belong together; the message says what differs.
    """
    use_rep = find_representation(adata, use_rep)
    z = read_representation(adata, use_rep, n_dims)
    pca, mean, sd = _behind(adata, use_rep, z.shape[1])
    loadings = _loadings(adata, pca, z.shape[1])
    params = adata.uns.get("pca" if pca == "X_pca" else pca, {}).get("params", {})
    layer = params.get("layer") if layer is None else layer
    columns = _used(loadings, params)
    p = loadings[columns]
    scores = z * sd + mean
    sample = np.unique(np.linspace(0, adata.n_obs - 1, _CHECKED).astype(int))
    matrix = expression_matrix(adata, layer)
    means = _means(matrix, columns)
    x = dense(matrix[sample], columns) - means
    target = scores[sample] - scores.mean(0)
    error = component_error(x @ p, target)
    if not error.max() <= tolerance:
        worst = int(np.nanargmax(error)) if np.isfinite(error).any() else 0
        where = "adata.X" if layer is None else f"layers[{layer!r}]"
        raise InputError(
            f"the loadings do not give obsm[{pca!r}] from {where}: error {error[worst]:.2g} of the spread of component "
            f"{worst + 1} (tolerance {tolerance:g}). {reason(adata, columns, p, sample, target, params)}"
        )
    return GeneMap(columns, p * sd, z.mean(0), means, sd, layer)


def _behind(adata: AnnData, use_rep: str, n_dims: int) -> tuple[str, Floats, Floats]:
    """The PCA behind a representation, and mean and standard deviation that lead back to it."""
    entry = adata.uns.get(use_rep, {})
    if not {"use_rep", "mean", "sd"} <= set(entry):
        return use_rep, np.zeros(n_dims), np.ones(n_dims)
    mean, sd = (np.asarray(entry[k], dtype=np.float64)[:n_dims] for k in ("mean", "sd"))
    return str(entry["use_rep"]), mean, sd


def _loadings(adata: AnnData, pca: str, n_dims: int) -> Floats:
    key = "PCs" if pca == "X_pca" or pca not in adata.varm else pca
    if key not in adata.varm:
        found = ", ".join(map(repr, adata.varm.keys())) or "none"
        raise MissingKeyError(
            f"obsm[{pca!r}] has no loadings: varm[{key!r}] does not exist (varm keys that exist: {found}). Genes can "
            "be had from a PCA (sc.pp.pca, then fit again) and from tw.pp.standardize of one, not from other "
            "representations."
        )
    loadings = np.asarray(adata.varm[key], dtype=np.float64)
    if loadings.shape[1] < n_dims:
        raise InputError(
            f"varm[{key!r}] has {loadings.shape[1]} components, obsm[{pca!r}] is used with {n_dims}: they are not of "
            "one PCA. Run sc.pp.pca again, or use fewer n_dims."
        )
    return loadings[:, :n_dims]


def _used(loadings: Floats, params: Mapping[str, Any]) -> Columns:
    """Genes that the PCA used: those of the mask. Without one all of them, as a constant gene has no loadings, too."""
    if params and not params.get("use_highly_variable") and params.get("mask_var") is None:
        return np.arange(len(loadings))
    return np.flatnonzero(loadings.any(1))


def _means(matrix: Any, columns: Columns) -> Floats:
    total = np.zeros(len(columns))
    for block in row_blocks(matrix, columns):
        total += block.sum(0)
    return total / matrix.shape[0]
