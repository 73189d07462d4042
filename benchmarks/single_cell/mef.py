"""From counts to genes on a held-out day of reprogramming: fibroblasts of days 10 and 11 predict day 10.5.

The cells of day 10.5 are kept out of everything that is fitted: the PCA is that of days 10 and 11, a flow is fitted to
their scores, all cells of day 10 are carried to day 10.5, and the prediction is decoded to genes. Real cells of day
10.5 are brought into the same PCA to be compared. Scores, beside references without a network:

- ``gene_r``: Pearson correlation over genes of the predicted and the real mean.
- ``change_r``: the same for the changes since day 10, a harder test: copying the day before has no change at all.
- ``mean_error``: root mean square difference of the means over genes.
- ``variance_ratio_genes``: median over genes of predicted over real variance. Decoded cells lack what lies outside the
  components; ``real-decoded``, the real cells through the same PCA, says what can be had.
- ``w1_pca``: exact Wasserstein-1 in the PCA, with its floor between halves of the real cells.

Last, drivers: fates towards the cell types of day 11, and the genes of largest correlation within days.

    python benchmarks/single_cell/mef.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch  # noqa: F401, loaded before a fit is timed
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

RESULTS = results.path_of("mef")
HELD_OUT, BEFORE, AFTER = 10.5, 10.0, 11.0
SPREAD = 0.05  # mean expression below which a gene's variance is hardly measured


def split(n_pcs: int) -> tuple[AnnData, AnnData]:
    """The training days with their PCA, and the held-out day in that PCA."""
    adata = tw.datasets.mef_reprogramming()
    train, real = adata[adata.obs["day"] != HELD_OUT].copy(), adata[adata.obs["day"] == HELD_OUT].copy()
    sc.pp.pca(train, n_comps=n_pcs, svd_solver="arpack", random_state=0)
    mean = np.asarray(train.X.mean(0)).ravel()
    real.obsm["X_pca"] = ((real.X.toarray() - mean) @ train.varm["PCs"]).astype(np.float32)
    return train, real


def score(cells: AnnData, expression: np.ndarray, real: AnnData, start: np.ndarray) -> dict[str, float]:
    """Scores of a prediction: its coordinates and weights, and its expression."""
    weights = cells.obs["weight"].to_numpy() if "weight" in cells.obs else np.full(len(cells), 1 / len(cells))
    truth = real.X.toarray()
    mean, expected = weights @ expression, truth.mean(0)
    expressed = expected > SPREAD
    variance = weights @ np.square(expression - mean)
    ratio = variance[expressed] / truth.var(0)[expressed]
    change = mean - start
    return {
        "gene_r": float(np.corrcoef(mean, expected)[0, 1]),
        "change_r": float(np.corrcoef(change, expected - start)[0, 1]) if np.abs(change).max() > 1e-3 else float("nan"),
        "mean_error": float(np.sqrt(np.square(mean - expected).mean())),
        "variance_ratio_genes": float(np.median(ratio)),
        "w1_pca": tw.metrics.wasserstein(cells.obsm["X_pca"], real.obsm["X_pca"], weights_x=weights),
    }


def references(train: AnnData, real: AnnData, start: np.ndarray) -> list[dict[str, object]]:
    """Scores without a network."""
    before = train[train.obs["day"] == BEFORE]
    rows: dict[str, tuple[AnnData, np.ndarray]] = {
        "copy-previous": (before, before.X.toarray()),
        "mean-of-neighbours": (train, train.X.toarray()),
        "real-decoded": (real, tw.tl.decode(real, train).X),
    }
    out: list[dict[str, object]] = []
    for name, (cells, expression) in rows.items():
        cells = cells.copy()
        if name == "mean-of-neighbours":  # both days alike, however many cells each has
            share = cells.obs["day"].map(1 / cells.obs["day"].value_counts()).to_numpy(dtype=np.float64)
            cells.obs["weight"] = share / share.sum()
        out.append({"method": name, "seed": 0, **score(cells, expression, real, start), "fit_seconds": 0.0})
    order = np.random.default_rng(0).permutation(len(real))
    halves = real[order[: len(order) // 2]].copy(), real[order[len(order) // 2 :]].copy()
    out.append(
        {"method": "floor", "seed": 0, **score(halves[0], halves[0].X.toarray(), halves[1], start), "fit_seconds": 0.0}
    )
    return out


def predict(train: AnnData, real: AnnData, start: np.ndarray, method: str, seed: int) -> dict[str, object]:
    begin = time.perf_counter()
    tw.tl.fit(train, "day", method=method, rng=seed, device="cpu")
    seconds = time.perf_counter() - begin
    predicted = tw.tl.interpolate(train, HELD_OUT)
    expression = tw.tl.decode(predicted, train).X
    return {"method": method, "seed": seed, **score(predicted, expression, real, start), "fit_seconds": seconds}


def driving_genes(train: AnnData, n_genes: int) -> dict[str, list[dict[str, object]]]:
    """Genes that go along with the fates of day 10, towards the cell types of day 11."""
    last = train.obs.loc[train.obs["day"] == AFTER, "cell_type"].value_counts()
    terminal = [str(name) for name in last.index[last >= 20] if name != "unknown"]
    tw.tl.fate(train, "cell_type", terminal=terminal)
    tw.tl.drivers(train, "cell_type", time_key="day", until=BEFORE)
    table = tw.get.drivers_df(train, "cell_type", n_genes=n_genes)
    columns = ["gene", "correlation", "lower", "upper", "q_value"]
    return {str(fate): part[columns].to_dict("records") for fate, part in table.groupby("group")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["usb", "otcfm", "uotcfm"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-pcs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    train, real = split(args.n_pcs)
    start = np.asarray(train[train.obs["day"] == BEFORE].X.mean(0)).ravel()
    rows = references(train, real, start)
    rows += [predict(train, real, start, m, s) for m in args.methods for s in range(args.seeds)]
    table = pd.DataFrame(rows)
    summary = table.groupby("method", sort=False).mean().drop(columns="seed")
    spread = table.groupby("method", sort=False)[["gene_r", "change_r", "w1_pca"]].std()
    result = results.head(vars(args), range(args.seeds), ["torch", "numpy", "scanpy"]) | {
        "protocol": __doc__.split("\n\n")[1].replace("\n", " "),
        "cells": {f"{day:g}": int(n) for day, n in ad.concat([train, real]).obs["day"].value_counts().items()},
        "genes": train.n_vars,
        "n_pcs": args.n_pcs,
        "explained_variance": float(train.uns["pca"]["variance_ratio"].sum()),
        "summary": summary.to_dict("index"),
        "sd_over_seeds": spread.dropna(how="all").to_dict("index"),
        "rows": rows,
        "drivers_of_day_10": driving_genes(train, 10),
    }
    print(tables.terminal(tables.frame_lines(summary)))
    print(f"written: {results.save(args.out, result)}")


if __name__ == "__main__":
    main()
