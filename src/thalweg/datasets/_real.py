"""Real time courses, and simulated ones of other authors, as AnnData, from the files of `thalweg.datasets.fetch`.

Nothing is filtered, scaled or recomputed: arrays and tables are those of the files.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from thalweg.datasets._registry import fetch
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

CITE_DAYS = (2, 3, 4, 7)
CITE_FILES = (50, 100)  # principal components in each of the two sets of files


def cite(n_pcs: int = 50) -> AnnData:
    """Return the CITE-seq time course of haematopoiesis, one donor, as principal components.

    The Open Problems 2022 data, as distributed with LightSB (Korotin, Gushchin and Burnaev, 2024; MIT): 6,071, 7,643,
    8,485 and 7,195 cells of days 2, 3, 4 and 7. There are two PCA fits of the same cells in the same order, with 50
    and 100 components; they agree in the first 28 and not in the last. Components are centred and uncorrelated, not
    standardised.

    Parameters
    ----------
    n_pcs
        Components, 1 to 100: the first ``n_pcs`` columns of the 50-component fit up to 50, of the other above.

    Returns
    -------
    AnnData
        29,394 cells without genes: ``obs["day"]`` int, ``obsm["X_pca"]`` float32 (29394, n_pcs), names ``day2_0``,
        ``day2_1``, ...

    Raises
    ------
    InputError
        ``n_pcs`` is out of range, or a file is not to be had (see `fetch`).
    """
    import pandas as pd
    from anndata import AnnData

    if isinstance(n_pcs, bool) or not isinstance(n_pcs, int | np.integer) or not 1 <= n_pcs <= CITE_FILES[-1]:
        raise InputError(f"n_pcs must be an integer from 1 to {CITE_FILES[-1]}; found {n_pcs!r}")
    fit = next(size for size in CITE_FILES if size >= n_pcs)
    names = [f"cite/full_cite_pcas_{fit}_day_{day}.npy" for day in CITE_DAYS]
    blocks = [np.load(fetch(name), allow_pickle=False) for name in names]
    obs = pd.DataFrame(
        {"day": np.repeat(CITE_DAYS, [len(block) for block in blocks])},
        index=[f"day{day}_{i}" for day, block in zip(CITE_DAYS, blocks, strict=True) for i in range(len(block))],
    )
    scores = np.concatenate([block[:, :n_pcs] for block in blocks]).astype(np.float32, copy=False)
    return AnnData(obs=obs, obsm={"X_pca": scores})


def larry() -> AnnData:
    """Return a subset of the LARRY course of haematopoiesis in vitro, with clone barcodes.

    Weinreb et al. (2020), as distributed with CoSpar (Wang et al., 2022; MIT): 781 cells of days 2, 4 and 6 by 2,481
    genes, normalised counts (no logarithm).

    Returns
    -------
    AnnData
        ``obs["time_info"]`` days as a category of strings, ``obs["state_info"]`` cell type; ``obsm["X_pca"]`` (40),
        ``obsm["X_emb"]`` (2-dimensional layout), ``obsm["X_clone"]`` (sparse, cells by clones, one clone per cell).

    Raises
    ------
    InputError
        The file is not to be had (see `fetch`).
    """
    return _read_h5ad("larry_subset/larry_781.h5ad")


def mef_reprogramming() -> AnnData:
    """Return a subset of the course of fibroblasts reprogrammed to stem cells.

    Schiebinger et al. (2019), as distributed with moscot (Klein et al., 2025; BSD-3-Clause): 1,000 cells of days 10,
    10.5 and 11 by 1,479 genes, log-normalised expression, without principal components.

    Returns
    -------
    AnnData
        ``obs["day"]``, ``obs["cell_type"]`` and ``obs["batch"]``.

    Raises
    ------
    InputError
        The file is not to be had (see `fetch`).
    """
    return _read_h5ad("mef_reprogramming/mef_reprogramming_1000.h5ad")


def boolode(knockout: int | None = None, *, n_times: int = 6) -> AnnData:
    """Return a course simulated with BoolODE from a branching gene network, with the true drift of each cell.

    Made for reference fitting (Zhang, 2024; MIT) with the simulator of Pratapa et al. (2020). Each cell is one step of
    a simulation of its own. The cells are cut into groups of equal size by their step, which stand for sampling times:
    the time of a group is its mean step over 100, in units of the simulator.

    Parameters
    ----------
    knockout
        Gene from 2 to 8 that is knocked out; None for the wild type.
    n_times
        Groups.

    Returns
    -------
    AnnData
        1,000 cells by 8 genes: expression in ``X`` and ``obsm["X_genes"]``, the drift in
        ``obsm["velocity_genes_true"]`` (expression per unit of time), ``obs["time"]``, ``obs["step"]``,
        ``obs["branch"]`` (the end that the cell's own simulation reaches).

    Raises
    ------
    InputError
        ``knockout`` or ``n_times`` is out of range, or a file is not to be had (see `fetch`).
    """
    import pandas as pd
    from anndata import AnnData

    if knockout is not None and knockout not in range(2, 9):
        raise InputError(f"knockout must be a gene from 2 to 8, or None; found {knockout!r}")
    if isinstance(n_times, bool) or not isinstance(n_times, int | np.integer) or not 2 <= n_times <= 100:
        raise InputError(f"n_times must be an integer from 2 to 100; found {n_times!r}")
    folder = "boolode_tf/dyn-TF" + ("" if knockout is None else f"_ko_g{knockout}")
    tables = [pd.read_csv(fetch(f"{folder}/{name}.csv"), index_col=0) for name in ("ExpressionData", "VelocityData")]
    expression = tables[0].T
    drift = tables[1].T.loc[expression.index, expression.columns]
    ends = pd.read_csv(fetch(f"{folder}/PseudoTime.csv"), index_col=0).loc[expression.index].notna()
    step = expression.index.str.rpartition("_").get_level_values(2).astype(int).to_numpy()
    time = np.empty(len(step))
    for group in np.array_split(np.argsort(step, kind="stable"), n_times):
        time[group] = step[group].mean() / 100
    branch = pd.Categorical(ends.columns[ends.to_numpy().argmax(1)].str.replace("PseudoTime", "branch "))
    obs = pd.DataFrame({"time": time, "step": step, "branch": branch}, index=expression.index)
    x = expression.to_numpy(np.float32)
    arrays = {"X_genes": x.copy(), "velocity_genes_true": drift.to_numpy(np.float32)}
    return AnnData(x, obs=obs, var=pd.DataFrame(index=expression.columns), obsm=arrays)


def _read_h5ad(name: str) -> AnnData:
    import anndata

    path = fetch(name)
    with warnings.catch_warnings():
        # The files predate anndata 0.8; their bytes are fixed by the sha256, so no user can act on the notice.
        warnings.simplefilter("ignore", anndata.OldFormatWarning)
        return anndata.read_h5ad(path)
