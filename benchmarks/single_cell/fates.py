"""Scores of predicted fates, shared by the scripts beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

import thalweg as tw
from thalweg.get._calibration import reliability

Floats = NDArray[np.float64]
N_NEIGHBORS = 15  # of the vote, as in tw.tl.fate


def knn_vote(
    x: Floats, last: NDArray[np.bool_], labels: NDArray[np.str_], groups: list[str], n_neighbors: int = N_NEIGHBORS
) -> Floats:
    """Shares of the groups among the nearest cells of the last time, without a flow; shape ``(n, groups)``."""
    usable = last & np.isin(labels, groups)
    index = NearestNeighbors(n_neighbors=n_neighbors).fit(x[usable]).kneighbors(x, return_distance=False)
    return np.stack([(labels[usable][index] == g).mean(1) for g in groups], 1)


def flow_fates(adata: AnnData, method: str, groupby: str, groups: list[str], seed: int) -> dict[str, Floats]:
    """Fates of all cells by the fit in ``adata``; of an ODE also with the futures of 60 neighbours averaged."""
    found = {}
    for name, n_neighbors in ((method, 15), (f"{method}, 60 neighbours", 60)):
        tw.tl.fate(adata, groupby, terminal=groups, n_neighbors=n_neighbors, rng=seed)
        found[name] = adata.obsm[f"fate_{groupby}"][groups].to_numpy()
        if adata.uns[f"fate_{groupby}"]["stochastic"] or adata.uns[f"fate_{groupby}"]["kind"] == "plan":
            break
    return found


def correlations(p: Floats, truth: Floats) -> dict[str, float]:
    """Pearson correlation over all cells and groups, its mean over groups, and the mean probability of the truth."""
    varies = [k for k in range(p.shape[1]) if p[:, k].std() > 0 and truth[:, k].std() > 0]
    by_group = [float(np.corrcoef(p[:, k], truth[:, k])[0, 1]) for k in varies]
    return {
        "correlation": float(np.corrcoef(p.ravel(), truth.ravel())[0, 1]) if p.std() > 0 else np.nan,
        "correlation_by_group": float(np.mean(by_group)) if by_group else np.nan,
        "probability_of_truth": float((p * truth).sum(1).mean()),
        "mean_absolute_error": float(np.abs(p - truth).mean()),
    }


def calibration(p: Floats, truth: Floats) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error, ten equal bins of all probabilities weighted by their count, and the bins."""
    table = reliability(p, truth)
    bins = table[["n", "predicted", "observed"]].rename(columns={"observed": "true"}).round(4)
    return float(table.attrs["ece"]), bins.to_dict("records")


def same_way(p: Floats, family: NDArray[np.int64], time: Floats) -> tuple[float, float, int]:
    """Share of pairs of one family and time with the same most probable fate; the same for pairs of two families."""
    best = p.argmax(1)
    frame = pd.DataFrame({"family": family, "time": time, "best": best})
    sisters = same = pairs = equal = 0
    for _, group in frame.groupby("time"):
        within = group.groupby("family")["best"]
        n, sizes = len(group), within.size().to_numpy()
        agree = group.groupby(["family", "best"]).size().to_numpy()
        all_agree = group.groupby("best").size().to_numpy()
        own_pairs, own_same = int((sizes * (sizes - 1)).sum()) // 2, int((agree * (agree - 1)).sum()) // 2
        sisters, same = sisters + own_pairs, same + own_same
        pairs += n * (n - 1) // 2 - own_pairs
        equal += int((all_agree * (all_agree - 1)).sum()) // 2 - own_same
    return same / max(sisters, 1), equal / max(pairs, 1), sisters
