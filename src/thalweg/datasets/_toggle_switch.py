r"""A toggle switch of three genes whose cells divide: movement, growth and the size of the population are all known.

One step moves a cell by ``f(x)`` and noise, and after it the cell divides with the probability ``p(x)``, both daughters
at its place (the model of Sha et al. 2024, TIGON, Nature Machine Intelligence 6:25, with their parameters):

.. math::
    f_1 &= \frac{\alpha_1 x_1^2 + \beta}{1 + \alpha_1 x_1^2 + \gamma_2 x_2^2 + \gamma_3 x_3^2 + \beta} - \delta x_1, \\
    f_2 &= \frac{\alpha_2 x_2^2 + \beta}{1 + \gamma_1 x_1^2 + \alpha_2 x_2^2 + \gamma_3 x_3^2 + \beta} - \delta x_2, \\
    f_3 &= \frac{\alpha_3 x_3^2}{1 + \alpha_3 x_3^2} - \delta x_3, \qquad
    p = 0.07 \, \frac{x_2^2}{1 + x_2^2} .
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg._random import Rng, resolve_rng
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]
ALPHA, GAMMA, BETA, DELTA = (0.5, 1.0, 1.0), (0.5, 1.0, 10.0), 1.0, 0.4
NOISE, DIVISION = 0.05, 0.07
STEPS, TIMES = 8, 5  # steps between two times, and times
_STARTS, _SPREAD = ((2.0, 0.2, 0.0), (0.0, 0.0, 2.0)), 0.1


def toggle_switch(n_cells: int = 400, *, rng: Rng = 0, random_state: Rng = None) -> AnnData:
    """Simulate a population of two states, of which one moves and divides and the other does neither.

    Half of the cells start around (2, 0.2, 0): gene 1 falls, gene 2 rises, and the cells divide the faster the more of
    it they have. The others stay around (0, 0, 2). All cells of the population are observed at each of five times,
    eight steps apart: with 400 at first about 440, 550, 730 and 1,000. Genes 1 and 2 are the representation.

    Parameters
    ----------
    n_cells
        Cells at the first time, an even number from 20 on.
    rng
        Seed, numpy Generator, or None for fresh entropy.
    random_state
        Another name for ``rng``.

    Returns
    -------
    AnnData
        X (n, 3) float32, the expression of three genes, and

        - ``obs["time"]`` 0 to 4; ``obs["state"]`` category, "switching" or "quiescent"
        - ``obsm["X_pca"]`` float32 (n, 2): genes 1 and 2 as they are
        - ``obs["growth_true"]`` divisions of a cell per unit of time, ``8 p(x)``
        - ``obsm["velocity_pca_true"]`` float32 (n, 2), the drift of genes 1 and 2 per unit of time, ``8 f(x)``
        - ``uns["population_size"]`` the number of cells at each time, for ``tl.fit(population_size="population_size")``

    Raises
    ------
    InputError
        If ``n_cells`` is out of range.
    TypeError
        If both ``rng`` and ``random_state`` are given.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.toggle_switch(rng=0)
    >>> tw.tl.fit(adata, "time", method="usb", population_size="population_size", rng=0)
    """
    import pandas as pd
    from anndata import AnnData

    if isinstance(n_cells, bool) or not isinstance(n_cells, int | np.integer) or n_cells < 20 or n_cells % 2:
        raise InputError(f"n_cells must be an even number from 20 on; found {n_cells!r}")
    generator = resolve_rng(None if random_state is not None and rng == 0 else rng, random_state)
    seen = list(_populations(int(n_cells), generator))
    x = np.concatenate(seen)
    time = np.repeat(np.arange(float(TIMES)), [len(one) for one in seen])
    state = pd.Categorical(np.where(x[:, 2] > 1, "quiescent", "switching"), categories=["switching", "quiescent"])
    obs = pd.DataFrame(
        {"time": time, "state": state, "growth_true": STEPS * division(x)}, index=[f"cell_{i}" for i in range(len(x))]
    )
    adata = AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=["gene_1", "gene_2", "gene_3"]))
    adata.obsm["X_pca"] = x[:, :2].astype(np.float32)
    adata.obsm["velocity_pca_true"] = (STEPS * drift(x)[:, :2]).astype(np.float32)
    adata.uns["population_size"] = {f"{t:g}": len(one) for t, one in enumerate(seen)}
    return adata


def drift(x: Array) -> Array:
    """``f`` of cells at ``x``, shape ``(n, 3)``, per step."""
    a, g, q = np.array(ALPHA), np.array(GAMMA), x**2
    rise = np.stack(
        [
            (a[0] * q[:, 0] + BETA) / (1 + a[0] * q[:, 0] + g[1] * q[:, 1] + g[2] * q[:, 2] + BETA),
            (a[1] * q[:, 1] + BETA) / (1 + g[0] * q[:, 0] + a[1] * q[:, 1] + g[2] * q[:, 2] + BETA),
            a[2] * q[:, 2] / (1 + a[2] * q[:, 2]),
        ],
        axis=1,
    )
    out: Array = rise - DELTA * x
    return out


def division(x: Array) -> Array:
    """``p`` of cells at ``x``, shape ``(n, 3)``, per step."""
    out: Array = DIVISION * x[:, 1] ** 2 / (1 + x[:, 1] ** 2)
    return out


def _populations(n: int, rng: np.random.Generator) -> Iterator[Array]:
    """The whole population at each observed time."""
    starts = np.repeat(np.array(_STARTS), n // 2, axis=0)
    x = np.abs(starts + _SPREAD * rng.standard_normal((n, 3)))  # expression is not negative
    yield x
    for _ in range(TIMES - 1):
        for _ in range(STEPS):
            x = np.maximum(x + drift(x) + NOISE * rng.standard_normal(x.shape), 0.0)
            x = np.concatenate([x, x[rng.random(len(x)) < division(x)]])
        yield x
