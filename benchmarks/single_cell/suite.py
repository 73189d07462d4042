"""Held-out times on other courses: simulated ones with known truth, MEF reprogramming, a part of LARRY.

Every method with the same defaults; W1 of the cells carried from the time before, of the cells carried from both sides,
and, where the drift is known, the mean cosine between learned and true velocities of the times of the fit.

    python benchmarks/single_cell/suite.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

RESULTS = results.path_of("suite")
TRUTH = "velocity_pca_true"


def courses(simulated_seeds: int) -> Iterator[tuple[str, AnnData, str]]:
    """Name, cells and time key of each course; coordinates in obsm["X_pca"]."""
    import scanpy as sc

    for seed in range(simulated_seeds):
        yield "simulated", tw.datasets.simulated(rng=seed), "time"
    mef = tw.datasets.mef_reprogramming()
    mef.uns.clear()
    sc.pp.pca(mef, n_comps=50, random_state=0)
    yield "MEF, 50 PCs", mef, "day"
    few = mef.copy()
    few.obsm["X_pca"] = few.obsm["X_pca"][:, :5]
    yield "MEF, 5 PCs", few, "day"
    larry = tw.datasets.larry()
    larry.obsm["X_pca"] = np.asarray(larry.obsm["X_pca"])[:, :10]
    yield "LARRY subset, 10 PCs", larry, "time_info"


def cosine(adata: AnnData) -> float:
    """Mean cosine of learned and true velocities, where the truth is not zero."""
    tw.tl.velocity(adata)
    v, u = np.asarray(adata.obsm["velocity_X_pca"], dtype=float), np.asarray(adata.obsm[TRUTH], dtype=float)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return float(((u * v).sum(1)[norms > 0] / norms[norms > 0]).mean())


def score(adata: AnnData, time_key: str, method: str, held_out: float, seed: int) -> dict[str, object]:
    """Fit without a time, predict it from one side and from both."""
    time = pd.to_numeric(adata.obs[time_key].astype(str)).to_numpy()
    train, real = adata[time != held_out].copy(), adata.obsm["X_pca"][time == held_out]
    tw.tl.fit(train, time_key, method=method, rng=seed, device="cpu")
    out: dict[str, object] = {"method": method, "time": held_out, "seed": seed}
    for name, both in (("w1", False), ("w1_both_ends", True)):
        predicted = tw.tl.interpolate(train, held_out, both_ends=both)
        weights = predicted.obs["weight"].to_numpy()
        out[name] = tw.metrics.wasserstein(predicted.obsm["X_pca"], real, weights_x=weights)
    out["velocity_cosine"] = cosine(train) if TRUTH in train.obsm else None
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["usb", "icfm", "otcfm", "uotcfm", "sf2m", "am", "uam", "fm"])
    parser.add_argument("--seeds", type=int, default=1, help="seeds of a fit on each course")
    parser.add_argument("--simulated-seeds", type=int, default=3, help="simulated courses")
    args = parser.parse_args()
    tw.settings.progress = False
    tw.settings.verbosity = "warning"
    rows = []
    for name, adata, time_key in courses(args.simulated_seeds):
        times = np.unique(pd.to_numeric(adata.obs[time_key].astype(str)))[1:-1]
        for method, t, seed in tqdm(
            [(m, t, s) for m in args.methods for t in times for s in range(args.seeds)], desc=name
        ):
            rows.append({"course": name} | score(adata, time_key, method, float(t), seed))
    table = pd.DataFrame(rows)
    figures = ["w1", "w1_both_ends", "velocity_cosine"]
    summary = table.groupby(["course", "method"])[figures].mean().round(4)
    print(tables.terminal(tables.frame_lines(summary)))
    result = results.head(vars(args), range(args.seeds))
    result |= {"summary": summary.reset_index().to_dict("records"), "rows": rows}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
