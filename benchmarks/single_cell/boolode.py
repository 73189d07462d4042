"""Drift and fates on a course that nobody here simulated: BoolODE, a branching network of eight genes.

1,000 cells in six groups by their step (`thalweg.datasets.boolode`). Drift: cosine with the simulator's own, and the
ratio of lengths (median), over all cells but those of the last group. Fates: those of the cells of the first three
groups against the branch that each cell's own simulation ends in, by the Brier score summed over branches.

Beside the methods: ``pooled score``, the kernel-density score of all cells alone (width .5), the answer that a drift
must beat; ``supervised``, an oracle: ridge regression of the true drift on the state by a Gaussian kernel, ten-fold,
which says how much of the drift the eight genes tell at all, as the proteins behind them are hidden; and ``usb, sigma
given``, with the diffusion at which the drift has its true length. Of fates: the shares of the branches at the last
time, and the vote of the nearest cells there.

    python benchmarks/single_cell/boolode.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables
from benchmarks.single_cell.fates import Floats, knn_vote

RESULTS = results.path_of("boolode")
WIDTH = 0.5  # of the kernel density, in gene units
GIVEN = 3.0  # a diffusion at which the drift is about as long as the true one


def pooled_score(adata: AnnData) -> Floats:
    """Score of the kernel density of all cells, each without itself."""
    x = np.asarray(adata.obsm["X_genes"], dtype=np.float64)
    square = ((x[:, None] - x) ** 2).sum(2) / WIDTH**2
    np.fill_diagonal(square, np.inf)
    w = np.exp(-0.5 * (square - square.min(1, keepdims=True)))
    score: Floats = (w @ x / w.sum(1, keepdims=True) - x) / WIDTH**2
    return score


def supervised(adata: AnnData) -> Floats:
    """The true drift as far as the state tells it: a regression, each cell predicted without its fold."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import cross_val_predict

    x, u = (np.asarray(adata.obsm[k], dtype=np.float64) for k in ("X_genes", "velocity_genes_true"))
    model = KernelRidge(kernel="rbf", gamma=0.4, alpha=0.1)
    predicted: Floats = cross_val_predict(model, x, u, cv=10)
    return predicted


def drift_scores(v: Floats, adata: AnnData) -> dict[str, float]:
    """Mean cosine and median ratio of lengths, but for the last group."""
    keep = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
    u, v = np.asarray(adata.obsm["velocity_genes_true"], dtype=np.float64)[keep], np.asarray(v, dtype=np.float64)[keep]
    sizes = np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)
    return {
        "cosine": round(float(((u * v).sum(1) / (sizes[0] * sizes[1])).mean()), 4),
        "length_ratio": round(float(np.median(sizes[1] / sizes[0])), 4),
    }


def brier(p: Floats, adata: AnnData) -> float:
    """Brier score of the fates of the first three groups, summed over branches."""
    times = np.unique(adata.obs["time"])
    early = np.isin(adata.obs["time"], times[:3])
    truth = pd.get_dummies(adata.obs["branch"]).to_numpy(dtype=float)
    return round(float(((p - truth) ** 2).sum(1)[early].mean()), 4)


def references(adata: AnnData, groups: list[str]) -> list[dict[str, object]]:
    """Rows without a flow."""
    last = (adata.obs["time"] == adata.obs["time"].max()).to_numpy()
    labels = adata.obs["branch"].astype(str).to_numpy()
    share = np.array([(labels[last] == g).mean() for g in groups])
    rows: list[dict[str, object]] = [
        {"method": "pooled score"} | drift_scores(pooled_score(adata), adata),
        {"method": "supervised"} | drift_scores(supervised(adata), adata),
        {"method": "last shares", "brier": brier(np.tile(share, (adata.n_obs, 1)), adata)},
    ]
    for k in (15, 60):
        vote = knn_vote(np.asarray(adata.obsm["X_genes"]), last, labels, groups, k)
        rows.append({"method": f"kNN vote, {k} cells", "brier": brier(vote, adata)})
    return rows


def fitted(adata: AnnData, method: str, seed: int, groups: list[str]) -> dict[str, object]:
    """Fit a method with its defaults, or with the given diffusion, and score it."""
    name, given = method.partition(", sigma")[::2]
    config = tw.tl.FitConfig(sigma=GIVEN) if given else None
    tw.tl.fit(adata, "time", method=name, use_rep="X_genes", config=config, rng=seed, device="cpu")
    tw.tl.velocity(adata)
    tw.tl.fate(adata, "branch", rng=seed)
    p = adata.obsm["fate_branch"][groups].to_numpy()
    sigma = float(np.median(adata.uns["thalweg"]["diffusion"]))
    row: dict[str, object] = {"method": method, "seed": seed, "sigma": round(sigma, 4), "brier": brier(p, adata)}
    return row | drift_scores(adata.obsm["velocity_X_genes"], adata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    methods = ["otcfm", "uotcfm", "sf2m", "fm", "usb", "usb, sigma given"]
    parser.add_argument("--methods", nargs="*", default=methods)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    adata = tw.datasets.boolode()
    groups = list(adata.obs["branch"].cat.categories)
    rows = references(adata, groups)
    rows += [fitted(adata, method, seed, groups) for method in args.methods for seed in range(args.seeds)]
    table = pd.DataFrame(rows)
    summary = table.groupby("method", sort=False)[["cosine", "length_ratio", "brier", "sigma"]].agg(["mean", "std"])
    summary.columns = [a if b == "mean" else f"{a}_sd" for a, b in summary.columns]
    print(tables.terminal(tables.frame_lines(summary.round(4))))
    result = results.head(vars(args), range(args.seeds))
    result |= {"summary": summary.round(4).reset_index().to_dict("records"), "rows": rows}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
