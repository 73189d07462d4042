"""A simulated time course as AnnData: the cells of a known landscape, seen through genes and principal components.

The SDE and its sampling are in `thalweg.datasets._landscape`; z (5) is its latent state and f its drift. Each snapshot
is a fresh sample of independent cells, as a destructive measurement gives: no cell is seen twice.

Expression: x = offset + z L + e, e ~ N(0, GENE_NOISE^2 I), with L (5, n_genes) of orthogonal rows of norm
LOADING_SCALE, and an offset per gene that keeps expression above 0 but for rare cells: the look of log-normalised
expression, without its zeros. PCA scores are (x - mean) PCs = z A + b + noise, with A = L PCs and b = (offset - mean)
PCs; the drift in PCA units is f(z) A and the diffusion sigma A.

Not guaranteed: a z read back from PCA scores carries their gene noise, about GENE_NOISE / LOADING_SCALE per coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg._random import Rng, resolve_rng
from thalweg.datasets._landscape import BRANCHES, DT, N_LATENT, Array, Landscape, fates, snapshot
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

COMMITTED = 0.9  # responsibility w_k from which a cell bears the name of branch k
LOADING_SCALE = 3.0
GENE_NOISE = 0.1


def simulated(
    n_cells: int = 2500,
    *,
    times: Sequence[float] = (0.0, 1.0, 2.0, 3.5, 5.0),
    n_genes: int = 200,
    n_pcs: int = 10,
    n_branches: int = 3,
    n_futures: int = 64,
    rng: Rng = 0,
    random_state: Rng = None,
) -> AnnData:
    """Simulate a time course of cells that differentiate into two or three branches under a known drift.

    The SDE is in the docstring of ``thalweg.datasets._landscape``. The population at a time does not depend on which
    other times are asked, so cells at times kept from a model come from a second call with the same integer ``rng``,
    ``n_genes`` and ``n_branches`` and other ``times``. Its cells are independent draws seen through the same genes;
    bring them into the PCA of the first with ``(second.X - first.X.mean(axis=0)) @ first.varm["PCs"]``.

    Parameters
    ----------
    n_cells
        Cells in all, shared equally among the times (earlier times take the remainder). At least 2 per time, and more
        than ``n_pcs``.
    times
        Snapshot times, at least 0 and increasing. A cell meets the first fork near time 1.4 and rests after time 5.
    n_genes
        Genes, at least 5.
    n_pcs
        Principal components kept, from 5 (the latent dimension) to ``n_genes``.
    n_branches
        2 or 3 terminal branches.
    n_futures
        Futures simulated from each cell for ``obsm["fate_true"]``, whose standard error is at most
        0.5 / sqrt(n_futures); 0 leaves it out.
    rng
        Seed, numpy Generator, or None for fresh entropy. One integer gives the same bits on one machine. No global
        random state is read or changed.
    random_state
        Another name for ``rng``.

    Returns
    -------
    AnnData
        X (n_cells, n_genes) float32, log-expression, and

        - ``obs["time"]`` float; ``obs["branch"]`` category, the branch k with w_k(z) >= 0.9, else "progenitor";
          ``obs["pseudotime"]`` float, s / end: 0 at the start, 1 at rest, not clipped
        - ``obsm["X_pca"]`` float32 (n_cells, n_pcs), ``varm["PCs"]`` and ``uns["pca"]`` as scanpy writes them
        - ``obsm["X_latent"]`` z, ``obsm["velocity_latent"]`` f(z), float64 (n_cells, 5)
        - ``obsm["velocity_pca_true"]`` float32 (n_cells, n_pcs), f(z) in PCA units per unit of time
        - ``obsm["fate_true"]`` float64 (n_cells, n_branches), share of the futures that reach each branch; its columns
          are named in ``uns["simulated"]["fates"]``
        - ``uns["simulated"]`` the parameters and the map from latent to PCA space

    Raises
    ------
    InputError
        An argument is out of the ranges above.
    TypeError
        Both ``rng`` and ``random_state`` are given.
    """
    timeline = _check(n_cells, times, n_genes, n_pcs, n_branches, n_futures)
    # rng has a default, so that 0 beside a random_state means that only the latter was given
    generator = resolve_rng(None if random_state is not None and rng == 0 else rng, random_state)
    genes, *streams = generator.spawn(4)
    # the genes are those of the seed; the request is part of the cells' seed, so that no two courses share draws
    request = [n_cells, *timeline.view(np.uint64).tolist()]
    cells, noise, futures = (np.random.default_rng([*s.integers(2**32, size=4).tolist(), *request]) for s in streams)
    default = Landscape()
    model = replace(default, **{name: getattr(default, name)[:n_branches] for name in ("a", "b", "pi")})
    sizes = n_cells // timeline.size + (np.arange(timeline.size) < n_cells % timeline.size)
    z = np.concatenate([snapshot(model, int(n), t, cells) for n, t in zip(sizes, timeline, strict=True)], axis=1)
    loading, offset = _genes(model, n_genes, genes)
    expression = offset + z.T @ loading + GENE_NOISE * noise.standard_normal((n_cells, n_genes))
    adata = _annotate(model, z, np.repeat(timeline, sizes), expression.astype(np.float32))
    _add_pca(adata, n_pcs, loading, offset)
    if n_futures:
        adata.obsm["fate_true"] = fates(model, z, n_futures, futures)
    return adata


def simulated_drift(adata: AnnData, x: ArrayLike, time: ArrayLike | None = None) -> Array:
    """Return the true drift at any points of the PCA space of a simulated data set.

    A point is read as the latent state nearest to it, z = (x - b) A^+ in the module's symbols; off the 5-dimensional
    image of the latent space the drift is that of the projection. At a stored cell this differs from
    ``obsm["velocity_pca_true"]`` by the effect of the gene noise on z alone.

    Parameters
    ----------
    adata
        What `simulated` returned, also after a round trip through a file. Only ``uns["simulated"]`` is read.
    x
        Points, (n, n_pcs), in the units of ``obsm["X_pca"]``.
    time
        Accepted so that the call has the form of a velocity field v(x, time). The process is autonomous: one number or
        n numbers, which do not change the result.

    Returns
    -------
    ndarray
        float64 (n, n_pcs), PCA units per unit of time.

    Raises
    ------
    MissingKeyError
        ``uns["simulated"]`` is absent.
    InputError
        ``x`` is not (n, n_pcs) or not finite, or ``time`` is neither one number nor n.
    """
    if "simulated" not in adata.uns:
        raise MissingKeyError(
            f"uns['simulated'] is absent (uns has {sorted(adata.uns)}): "
            "pass an AnnData made by thalweg.datasets.simulated"
        )
    stored = adata.uns["simulated"]
    linear, shift = np.asarray(stored["latent_to_pca"]), np.asarray(stored["latent_origin_pca"])
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != shift.size or not np.isfinite(points).all():
        raise InputError(f"x must be finite with shape (n, {shift.size}), the stored PCs; found shape {points.shape}")
    if time is not None and np.shape(time) not in {(), (1,), (len(points),)}:
        raise InputError(f"time must be one number or one per point ({len(points)}); found shape {np.shape(time)}")
    model = Landscape(**{f.name: stored["sde"][f.name] for f in fields(Landscape)})
    drift, _ = model.evaluate(((points - shift) @ np.linalg.pinv(linear)).T)
    return np.asarray(drift.T @ linear)


def _check(n_cells: int, times: Sequence[float], n_genes: int, n_pcs: int, n_branches: int, n_futures: int) -> Array:
    """Check the arguments of `simulated` and return the times as an array."""
    timeline = np.asarray(times, dtype=np.float64)
    if timeline.ndim != 1 or not timeline.size or not np.isfinite(timeline).all() or timeline[0] < 0:
        raise InputError(f"times must be finite numbers from 0 on; found {times!r}")
    if (np.diff(timeline) <= 0).any():
        raise InputError(f"times must increase; found {times!r}: sort them and name each once")
    bounds: dict[str, tuple[int, int, float]] = {
        "n_cells": (n_cells, 2 * timeline.size, np.inf),
        "n_genes": (n_genes, N_LATENT, np.inf),
        "n_pcs": (n_pcs, N_LATENT, n_genes),
        "n_branches": (n_branches, 2, len(BRANCHES)),
        "n_futures": (n_futures, 0, np.inf),
    }
    for name, (value, low, high) in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise InputError(f"{name} must be an integer from {low} to {high}; found {value!r}")
    if n_cells <= n_pcs:
        raise InputError(f"n_cells={n_cells} cells have fewer than n_pcs={n_pcs} principal components: raise n_cells")
    return timeline


def _genes(model: Landscape, n_genes: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Draw the loading L, (5, n_genes), and the offset, (n_genes,)."""
    q, r = np.linalg.qr(generator.standard_normal((n_genes, N_LATENT)))
    loading = LOADING_SCALE * (q * np.sign(np.diag(r))).T  # the sign that LAPACK is free to choose
    s = np.linspace(-3.0 * model.spread, model.end + 1.0, 151)
    m, c = model.floors(s)[0], model.programmes(s)[0]
    lowest = np.min([(np.concatenate([s[None], floor, c]).T @ loading).min(axis=0) for floor in m], axis=0)
    return loading, generator.uniform(0.5, 1.5, n_genes) - lowest


def _annotate(model: Landscape, z: Array, time: Array, expression: NDArray[np.float32]) -> AnnData:
    """Make the AnnData with everything that needs neither PCA nor futures."""
    import pandas as pd
    from anndata import AnnData

    f, w = model.evaluate(z)
    names = list(BRANCHES[: len(model.pi)])
    code = np.where(w.max(axis=0) >= COMMITTED, w.argmax(axis=0) + 1, 0)
    obs = pd.DataFrame(
        {
            "time": time,
            "branch": pd.Categorical.from_codes(code, categories=["progenitor", *names]),
            "pseudotime": z[0] / model.end,
        },
        index=[f"cell_{i}" for i in range(z.shape[1])],
    )
    adata = AnnData(expression, obs=obs, var=pd.DataFrame(index=[f"gene_{j}" for j in range(expression.shape[1])]))
    adata.obsm["X_latent"], adata.obsm["velocity_latent"] = z.T.copy(), f.T.copy()
    adata.uns["simulated"] = {
        "fates": np.array(names),
        "sde": asdict(model),
        "dt": DT,
        "loading_scale": LOADING_SCALE,
        "gene_noise": GENE_NOISE,
    }
    return adata


def _add_pca(adata: AnnData, n_pcs: int, loading: Array, offset: Array) -> None:
    """Write the exact PCA of X, as scanpy lays it out, and the true drift in its coordinates."""
    x = np.asarray(adata.X, dtype=np.float64)
    mean = x.mean(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    pcs = vectors[:, ::-1][:, :n_pcs]
    pcs = pcs * np.where((loading @ pcs)[0] < 0, -1.0, 1.0)  # the free sign: scores rise with progress
    adata.obsm["X_pca"] = ((x - mean) @ pcs).astype(np.float32)
    adata.varm["PCs"] = pcs.astype(np.float32)
    kept = variance[::-1][:n_pcs].copy()
    adata.uns["pca"] = {
        "params": {"zero_center": True, "use_highly_variable": False},
        "variance": kept,
        "variance_ratio": kept / variance.sum(),
    }
    linear = loading @ pcs
    adata.obsm["velocity_pca_true"] = (adata.obsm["velocity_latent"] @ linear).astype(np.float32)
    adata.uns["simulated"] |= {"latent_to_pca": linear, "latent_origin_pca": (offset - mean) @ pcs}
