"""`tl.gene_trends`: mean expression through time, with a band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.data.expression import Floats, read_expression
from thalweg.data.fates import read_draws, read_fates
from thalweg.data.rates import read_weights
from thalweg.data.replicates import Rows, half_width, over_draws, over_replicates, read_replicates
from thalweg.data.times import TimeMap, obs_column, parse_times
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Band = Literal["mean", "cells"]
_DRAWS_CELLS = 2**22  # weights drawn at once, 32 MiB


def gene_trends(
    adata: AnnData,
    genes: str | Sequence[str],
    time_key: str,
    *,
    fate: str | None = None,
    groupby: str | None = None,
    weight_key: str | None = None,
    layer: str | None = None,
    time_map: TimeMap | None = None,
    replicate_key: str | None = None,
    band: Band = "mean",
    level: float = 0.95,
    n_draws: int = 500,
    rng: Rng = 0,
    random_state: Rng = None,
) -> pd.DataFrame:
    """Mean expression of genes through time, for all cells, groups of cells, or lineages.

    Works on measured cells and on predicted ones that were decoded (`decode`), whose times may be as dense as one
    likes. A mean is over the cells of one time, weighted by ``weight_key`` and, for a lineage, by the probability of
    its fate: every cell counts for each lineage by how likely it ends there.

    Parameters
    ----------
    adata
        Cells with expression.
    genes
        A gene, or several.
    time_key
        Column of ``obs`` with times.
    fate
        As ``groupby`` in `fate`: a trend for each column of ``obsm["fate_<fate>"]``.
    groupby
        Column of ``obs``: a trend for each group of cells. Not together with ``fate``.
    weight_key
        Column of ``obs`` with positive weights, e.g. ``"weight"`` of predicted cells.
    layer
        Layer with the expression; ``X`` by default.
    time_map
        Number for each label of ``obs[time_key]``.
    band
        ``"mean"``: interval of the mean, by the Bayesian bootstrap over the cells of a time (Rubin 1981). Of a lineage
        each draw takes one of the draws of the fates, where `fate` made them (``n_draws``, or models).
        ``"cells"``: quantiles of the cells themselves.
    replicate_key
        Column of ``obs`` with the replicate of each cell: the band of the mean is then that of other replicates, by
        Student's t (`thalweg.data.replicates`), and of a lineage holds the draws of the fates, too. A band over cells
        says nothing of other replicates. It is NaN where a time has one replicate, and a warning names the times.
    level
        Coverage of the band.
    n_draws
        Draws of the bootstrap.
    rng, random_state
        Seed of the bootstrap.

    Returns
    -------
    A row for each gene, group and time: ``gene``, ``group`` (``"all"`` without groups), ``time``, ``mean``, ``lower``,
    ``upper``, and ``n_effective``, the number of equally weighted cells that would be as informative, ``(sum w)^2 /
    sum w^2``. Times at which a group has no cells (or no weight) have no row.

    Raises
    ------
    MissingKeyError
        If a gene, a column, the layer or the fates do not exist.
    InputError
        If values cannot be used, both ``fate`` and ``groupby`` are given, a cell has no replicate, or ``band`` is
        ``"cells"`` with ``replicate_key``.
    MemoryBudgetError
        If the genes' expression would exceed ``thalweg.settings.max_memory``.
    """
    generator = resolve_rng(None if random_state is not None and rng == 0 else rng, random_state)
    if band not in ("mean", "cells"):
        raise InputError(f"band must be 'mean' or 'cells', found {band!r}.")
    if not 0 < level < 1 or n_draws < 1:
        raise InputError(f"level must lie between 0 and 1 and n_draws be positive, found {level!r} and {n_draws!r}.")
    time = parse_times(adata, time_key, time_map)
    x = read_expression(adata, genes, layer)
    weights = np.ones(len(time)) if weight_key is None else read_weights(adata, weight_key)
    replicate = None if replicate_key is None else read_replicates(adata, replicate_key)[0]
    if replicate is not None and band == "cells":
        raise InputError(
            "band='cells' holds the cells themselves, which replicate_key changes nothing of; leave it out."
        )
    names = [genes] if isinstance(genes, str) else list(genes)
    tails = ((1 - level) / 2, (1 + level) / 2)
    frames = []
    for group, share, draws in _groups(adata, fate, groupby):
        for t in np.unique(time):
            rows = np.flatnonzero((time == t) & (share > 0))
            if not len(rows):
                continue
            w = weights[rows] * share[rows]
            w = w / w.sum()
            options = w[None] if draws is None else weights[rows] * draws[:, rows]
            if band == "cells":
                edges = _quantiles(x[rows], w, tails)
            elif replicate is not None:
                edges = _over_replicates(x[rows], w, options, replicate[rows], level)
            else:
                edges = _bootstrap(x[rows], options, tails, n_draws, generator)
            columns = {"gene": names, "group": group, "time": float(t), "mean": w @ x[rows]}
            frames.append(
                pd.DataFrame(columns | dict(zip(("lower", "upper"), edges, strict=True)) | {"n_effective": 1 / (w @ w)})
            )
    out = pd.concat(frames, ignore_index=True)
    if out["lower"].isna().any():
        alone = sorted(set(out.loc[out["lower"].isna(), "time"]))
        logger.warning("one replicate only at the times %s, so that trends have no band there", alone)
    order = {name: i for i, name in enumerate(names)}
    return out.sort_values("gene", key=lambda g: g.map(order), kind="stable", ignore_index=True)


def _over_replicates(x: Floats, w: Floats, options: Floats, replicate: Rows, level: float) -> NDArray[np.float64]:
    """Limits of the mean over replicates, and of the draws of the fates where there are several, ``(2, n_genes)``."""
    parts = [replicate == r for r in np.unique(replicate)]
    total = np.array([w[part].sum() for part in parts])
    means = np.stack([w[part] @ x[part] / w[part].sum() for part in parts])
    mean, spread = over_replicates(means, np.broadcast_to(total[:, None], means.shape))
    spreads = [spread]
    if len(options) > 1:
        of = options @ x / options.sum(1, keepdims=True)
        spreads.append(over_draws(of, max(len(parts), 2)))
    half = half_width(spreads, level)
    return np.stack([mean - half, mean + half])


def _groups(adata: AnnData, fate: str | None, groupby: str | None) -> Iterator[tuple[str, Floats, Floats | None]]:
    """Names of the trends, how much of each cell counts for it, and the same by each draw, shape ``(n_draws, n)``."""
    if fate is not None and groupby is not None:
        raise InputError(f"give fate={fate!r} (lineages) or groupby={groupby!r} (groups of cells), not both.")
    if fate is not None:
        fates = read_fates(adata, fate)
        draws = read_draws(adata, fate, list(map(str, fates.columns)))
        for k, name in enumerate(fates.columns):
            yield str(name), fates[name].to_numpy().clip(0), None if draws is None else draws[:, :, k].T.clip(0)
    elif groupby is not None:
        column = obs_column(adata, groupby, "groupby").astype("category")
        yield from ((str(g), (column == g).to_numpy(dtype=np.float64), None) for g in column.cat.categories)
    else:
        yield "all", np.ones(adata.n_obs), None


def _bootstrap(
    x: Floats, options: Floats, tails: tuple[float, float], n_draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Quantiles of the weighted mean when each cell counts by an exponential number, shape ``(2, n_genes)``.

    ``options`` are weights of the cells, shape ``(n_options, n)``; each draw takes one of them.
    """
    block = max(1, _DRAWS_CELLS // len(x))
    means = []
    for start in range(0, n_draws, block):
        n = min(block, n_draws - start)
        draws = rng.standard_exponential((n, len(x))) * options[rng.integers(len(options), size=n)]
        means.append(draws @ x / np.maximum(draws.sum(1, keepdims=True), np.finfo(float).tiny))
    return np.quantile(np.concatenate(means), tails, axis=0)


def _quantiles(x: Floats, w: Floats, tails: tuple[float, float]) -> NDArray[np.float64]:
    """Weighted quantiles of each gene: the smallest value with that share of the weight at or below it."""
    order = np.argsort(x, axis=0, kind="stable")
    below = np.cumsum(w[order], axis=0)
    rows = [np.minimum((below < q - 1e-12).sum(0), len(x) - 1) for q in tails]
    return np.stack([np.take_along_axis(x, order, 0)[row, np.arange(x.shape[1])] for row in rows])
