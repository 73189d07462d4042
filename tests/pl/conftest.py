"""Cells whose every number is known, in the forms the tools write."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

TIMES = (0.0, 1.0, 3.0)
COLORS = {"stem": "#112233", "left": "#aa0000", "right": "#00bb00"}
PLAN = {"time_key": "time", "weight_key": "", "condition_key": "", "map_labels": np.array([], dtype=str)}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def cells() -> AnnData:
    """A disc of 600 cells that turns: velocity (-y, x). Everything else about it is written as the tools write it."""
    rng = np.random.default_rng(0)
    n = 600
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0, 1, n))
    xy = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    time = np.repeat(TIMES, n // 3)
    kind = np.where(time == 0, "stem", np.where(xy[:, 0] < 0, "left", "right"))
    obs = pd.DataFrame({"time": time}, index=[f"cell{i}" for i in range(n)])
    obs["kind"] = pd.Categorical(kind, categories=list(COLORS))
    obs["condition"] = pd.Categorical(np.where(np.arange(n) % 2, "drug", "control"))
    adata = AnnData(rng.standard_normal((n, 4)).astype(np.float32), obs=obs)
    adata.obsm["X_pca"] = np.hstack([xy, rng.standard_normal((n, 1))])
    adata.obsm["velocity_X_pca"] = np.stack([-xy[:, 1], xy[:, 0], np.zeros(n)], axis=1)
    adata.obsm["X_umap"] = xy @ np.array([[2.0, 1.0], [0.0, 1.0]])
    adata.uns["kind_colors"] = np.array(list(COLORS.values()))
    _add_fates(adata, rng)
    _add_couplings(adata)
    _add_growth(adata, rng)
    _add_drivers(adata)
    return adata


def _add_fates(adata: AnnData, rng: np.random.Generator) -> None:
    p = rng.dirichlet([1, 1], adata.n_obs)
    p[:3] = [[1, 0], [0, 1], [0.5, 0.5]]
    adata.obsm["fate_kind"] = pd.DataFrame(p, index=adata.obs_names, columns=["left", "right"])
    adata.obs["fate_kind"] = pd.Categorical.from_codes(p.argmax(1), ["left", "right"])
    adata.obs["fate_kind_confidence"] = adata.obs["fate_kind_se"] = 0.5
    adata.uns["fate_kind"] = {"time_key": "time"}


def _add_couplings(adata: AnnData) -> None:
    """Each cell becomes the one 200 rows later; cells of kind "right" leave three descendants, at the middle time."""
    n = adata.n_obs
    rows = np.arange(n - 200)
    grow = np.where((adata.obs["kind"] == "right").to_numpy()[rows] & (rows >= 200), 3.0, 1.0)
    adata.obsp["transition"] = sparse.csr_matrix((grow, (rows, rows + 200)), shape=(n, n))
    pairs = pd.DataFrame({"t0": [0.0, 1.0], "t1": [1.0, 3.0]}, index=["0", "1"])
    adata.uns["transition"] = {"params": {}, "pairs": pairs, **PLAN, "map_values": np.array([])}


def _add_growth(adata: AnnData, rng: np.random.Generator) -> None:
    adata.obs["growth"] = rng.normal(0.2, 1, adata.n_obs)
    adata.obs.loc[adata.obs["time"] == TIMES[-1], "growth"] = np.nan
    adata.uns["growth"] = {"method": "unbalanced", "time_key": "time"}


def _add_drivers(adata: AnnData) -> None:
    r = np.array([0.9, 0.5, 0.05, -0.3, -0.7, np.nan])
    table = pd.DataFrame({"group": "left", "gene": [f"Gene{i}" for i in range(6)], "correlation": r})
    table = table.assign(lower=r - 0.05, upper=r + 0.04, p_value=1e-3, q_value=[1e-9, 1e-4, 0.4, 1e-3, 1e-6, np.nan])
    adata.uns["drivers_kind"] = {"table": table, "params": {}}


@pytest.fixture
def paths() -> AnnData:
    """Three trajectories on arcs, the rows shuffled."""
    times = np.linspace(0, 3, 7)
    rows = [(f"p{k}", f"cell{k}", t, k + 1.0) for k in range(3) for t in times]
    obs = pd.DataFrame(rows, columns=["trajectory", "source", "time", "weight"])
    start = np.array([0.0, 2.0, 4.0])
    turn = obs["time"].to_numpy() / 3 + np.repeat(start, len(times))
    x = np.stack([np.cos(turn), np.sin(turn), np.zeros(len(obs))], axis=1)
    obs.index = [f"row{i}" for i in range(len(obs))]
    obs["condition"] = np.where(obs["trajectory"] == "p1", "drug", "control")
    for name in ("trajectory", "source", "condition"):
        obs[name] = pd.Categorical(obs[name])
    order = np.random.default_rng(1).permutation(len(obs))
    out = AnnData(obs=obs.iloc[order], obsm={"X_pca": x[order]})
    out.uns["trajectories"] = {
        "time_key": "time", "use_rep": "X_pca", "map_labels": np.array([], dtype=str), "map_values": np.array([]),
    }  # fmt: skip
    return out


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [("otcfm", t, s, 1.0 + t + 0.1 * s) for t in (1.0, 2.0) for s in (0, 1)]
    rows += [("copy-previous", t, 0, 4.0) for t in (1.0, 2.0)] + [("floor", t, 0, 0.5 * t) for t in (1.0, 2.0)]
    return pd.DataFrame(rows, columns=["method", "time", "seed", "w1"])


@pytest.fixture
def trends() -> pd.DataFrame:
    rows = []
    for i, gene in enumerate(["Gata1", "Mpo", "Cd34"]):
        for j, group in enumerate(["left", "right"]):
            for t in TIMES:
                mean = i + j * t + np.sin(i + t)
                rows.append((gene, group, t, mean, mean - 0.2 - i / 10, mean + 0.1 + j / 10))
    return pd.DataFrame(rows, columns=["gene", "group", "time", "mean", "lower", "upper"])
