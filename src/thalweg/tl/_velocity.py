"""`tl.velocity`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from thalweg._memory import check_memory
from thalweg._settings import logger, settings
from thalweg.core.projection import Projection, project
from thalweg.data.cells import Floats, read_cells
from thalweg.data.embedding import read_embedding
from thalweg.data.entries import find_fit
from thalweg.data.expression import gene_columns
from thalweg.data.representation import read_representation
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.drift import current, drift
from thalweg.flows.ensemble import spread
from thalweg.flows.store import Stored, load_fit
from thalweg.tl._genes.gene_map import GeneMap, read_gene_map
from thalweg.tl._stored.reading import cells_of

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 4096  # cells led to genes at once


def velocity(
    adata: AnnData,
    *,
    key: str = "thalweg",
    kind: Literal["drift", "flow"] | None = None,
    basis: str | None = None,
    projection: Projection = "regression",
    n_neighbors: int = 50,
    genes: bool | Sequence[str] = False,
    layer: str | None = None,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    """Velocity of every cell at its own time.

    A cell's drift is the mean of what it does next. It is not the velocity of its population: in a population at rest
    every cell is pulled back to where the others are, against its own noise, while nothing moves as a whole. Methods
    with a score know both, ``b = v + (sigma^2 / 2) grad log p`` (Tong et al. 2024).

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.
    kind
        ``"drift"``, or ``"flow"`` for the velocity of the population. By default the drift where the method has a score
        (``"usb"``, ``"sf2m"``, ``"eam"``). At an observed time the drift is the mean of both sides, as is the flow of
        ``"usb"``; the flow of other methods is that of the interval ahead.
    basis
        Embedding to project the velocities on, for plots: ``"umap"`` for ``obsm["X_umap"]``.
    projection
        ``"regression"`` takes the embedding to be linear around each cell and keeps speeds; ``"transition"`` averages
        directions under transition probabilities to neighbours (La Manno et al. 2018), as scvelo does.
    n_neighbors
        Neighbours of a cell for the projection.
    genes
        Velocities of gene expression, too: True for all genes of the PCA behind the representation, or names of genes.
        The loadings are checked as in `decode`.
    layer
        Layer that the PCA was made of, for ``genes``; by default the one named by ``uns["pca"]``, else ``X``.
    device
        Where to evaluate.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obsm["velocity_<use_rep>"]`` : array, float32, shape ``(n_cells, n_dims)``
        Units of the representation per unit of ``obs[time_key]``; as many columns as the fit used.
    ``adata.obsm["velocity_<use_rep>_sd"]`` : array, float32, for fits with ``n_models``
        Standard deviation of each component over the models.
    ``adata.obs["velocity_agreement"]`` : float, for fits with ``n_models``
        ``|v|^2 / (|v|^2 + |sd|^2)``: 1 where the models agree, one half where they differ by as much as the velocity.
    ``adata.obs["growth_rate"]`` : float, for methods with births and deaths
        Growth per unit of ``obs[time_key]``, relative to the mean unless sizes or rates were counted.
    ``adata.obs["growth_rate_sd"]`` : float, for fits with ``resample=True``
        Its standard deviation over the models.
    ``adata.obsm["velocity_<basis>"]`` : array, float32, with ``basis``
        One column for each of the embedding's; with ``"regression"`` in its units per unit of ``obs[time_key]``.
    ``adata.layers["velocity"]`` : array, float32, shape ``(n_cells, n_genes)``, with ``genes``
        Units of expression per unit of ``obs[time_key]``; NaN for genes without a velocity, as in scvelo.
    ``adata.var["velocity_genes"]`` : bool, with ``genes``
        The genes that have one.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``, no embedding ``basis``, or no loadings or gene for ``genes``.
    InputError
        If the cells cannot be read as in the fit, or ``kind="drift"`` is asked of a method without a score; for
        ``genes``, if loadings, scores and expression do not belong
        together.
    MemoryBudgetError
        If the layer would exceed ``thalweg.settings.max_memory``.
    """
    stored = load_fit(find_fit(adata, key), key, device)
    rep, time_key = str(stored.recipe.use_rep), stored.recipe.time_key
    to_genes = None if genes is False else _gene_map(adata, rep, stored.flow.n_dims, genes, layer)
    cells = cells_of(adata, stored, stored.recipe.places)
    embedding = None if basis is None else read_embedding(adata, basis).key
    chosen = _kind(kind, stored)
    where = cells.x, cells.time, cells.labels(np.arange(len(cells.x)))
    v = cells.merged(_field(chosen, stored)(*where))
    differ = spread(stored.flow, lambda flow: cells.merged(_field(chosen, replace(stored, flow=flow))(*where)))
    out = writable(adata, copy)
    name = f"velocity_{rep}"
    out.obsm[name] = v.astype(np.float32)
    logger.info("added obsm[%r]: %s of the cells per unit of obs[%r]", name, chosen, time_key)
    if chosen == "flow" and not stored.process.has_score:
        logger.info(
            "the flow of %r moves the population; single cells move faster, on simulated courses by a third or more. "
            "Their drift needs a score: method='usb'", stored.method.name,
        )  # fmt: skip
    if differ is not None:
        out.obsm[f"{name}_sd"] = differ.astype(np.float32)
        size, error = np.square(v).sum(1), np.square(differ).sum(1)
        out.obs["velocity_agreement"] = size / np.maximum(size + error, np.finfo(float).tiny)
        logger.info("added obsm[%r], obs['velocity_agreement']: how far the models differ", f"{name}_sd")
    else:
        out.obs.drop(columns="velocity_agreement", errors="ignore", inplace=True)  # of an earlier fit
        out.obsm.pop(f"{name}_sd", None)
    out.obs.drop(columns="growth_rate_sd", errors="ignore", inplace=True)  # of an earlier fit
    if stored.turnovers:
        rate, rate_sd = stored.growth_now(read_cells(adata, stored.recipe))
        out.obs["growth_rate"] = cells.merged(rate)
        if rate_sd is not None:
            out.obs["growth_rate_sd"] = cells.merged(rate_sd)
        logger.info("added obs['growth_rate']: growth of the cells per unit of obs[%r]", time_key)
    if embedding is not None:
        y = read_representation(adata, embedding)
        on = v if embedding == rep else project(cells.x[: len(y)], v, y, method=projection, n_neighbors=n_neighbors)
        name = f"velocity_{embedding.removeprefix('X_')}"
        out.obsm[name] = on.astype(np.float32)
        logger.info("added obsm[%r]: velocities on obsm[%r]", name, embedding)
    if to_genes is not None:
        layer_x = np.full(out.shape, np.nan, dtype=np.float32)
        for start in range(0, len(v), _BLOCK):
            layer_x[start : start + _BLOCK, to_genes.columns] = to_genes.velocity(v[start : start + _BLOCK])
        out.layers["velocity"] = layer_x
        out.var["velocity_genes"] = np.isin(np.arange(out.n_vars), to_genes.columns)
        logger.info("added layers['velocity'], var['velocity_genes']: %d genes", len(to_genes.columns))
    return out if copy else None


def _kind(kind: str | None, stored: Stored) -> str:
    if kind not in (None, "drift", "flow"):
        raise InputError(f"kind must be 'drift', 'flow' or None, found {kind!r}.")
    return kind or ("drift" if stored.process.has_score else "flow")


def _field(kind: str, stored: Stored) -> Callable[..., Floats]:
    """The function of coordinates, times and conditions."""
    if kind == "drift":
        return partial(drift, stored.process)
    return partial(current, stored.process) if stored.method.bridged else stored.process.velocity


def _gene_map(adata: AnnData, use_rep: str, n_dims: int, genes: bool | Sequence[str], layer: str | None) -> GeneMap:
    fix = "keep fewer genes in adata (adata[:, genes] with all of the PCA)"
    check_memory("velocities of genes", adata.n_obs, adata.n_vars, 4, settings.max_memory, fix)
    to_genes = read_gene_map(adata, use_rep, n_dims, layer=layer)
    if isinstance(genes, bool):
        return to_genes
    return to_genes.only(gene_columns(adata, genes), adata.var_names.to_numpy())
