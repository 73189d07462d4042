"""Energy distance on CITE by the protocol of LightSB's table (Korotin et al. 2024): 50 and 100 components.

Days 2 and 4 predict day 3, days 3 and 7 predict day 4, at the true day spacing; nothing else is seen. Coordinates are
divided by the mean over axes of the standard deviation of start, end and evaluation cells together; the score is the
U-statistic E|x - y| - E|x - x'|/2 - E|y - y'|/2 in original units, without a root, which is what the code behind that
table computes (`LightSB_MSCI.ipynb` of its repository); mean of both days.

    python benchmarks/single_cell/energy.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

RESULTS = results.path_of("cite_energy")
WAYS = {"": {}, ", sample": {"prediction": "sample"}}
FOLDS = ((2.0, 4.0, 3.0), (3.0, 7.0, 4.0))
PUBLISHED = {50: {"LightSB": 2.31, "discrete Sinkhorn": 2.34}, 100: {"LightSB": 2.16, "discrete Sinkhorn": 2.24}}


def mean_distance(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """``sum_ij a_i b_j |x_i - y_j|``, in blocks of rows."""
    tx, ty, tb = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y, b))
    total = 0.0
    for i in range(0, len(x), 1000):
        block = torch.cdist(tx[i : i + 1000], ty) @ tb
        total += float(torch.as_tensor(a[i : i + 1000], dtype=torch.float64) @ block)
    return total


def energy(x: np.ndarray, y: np.ndarray, a: np.ndarray) -> float:
    """U-statistic of half the energy distance of weighted ``x`` and ``y``: a cell is no pair with itself."""
    b = np.full(len(y), 1 / len(y))
    within = mean_distance(x, x, a, a) / (1 - (a**2).sum()) + mean_distance(y, y, b, b) / (1 - (b**2).sum())
    return mean_distance(x, y, a, b) - within / 2


def rows(dims: int, methods: list[str], seeds: int) -> list[dict[str, object]]:
    """A row for each method, held-out day, seed, and way to predict."""
    adata = tw.datasets.cite(n_pcs=100 if dims == 100 else 50)
    out = []
    for (start, end, held_out), method, seed in tqdm(
        [(f, m, s) for f in FOLDS for m in methods for s in range(seeds)], desc=f"{dims} PCs"
    ):
        three = adata[adata.obs["day"].isin([start, end, held_out])]
        scale = float(np.asarray(three.obsm["X_pca"][:, :dims]).std(0).mean())
        ends = three[three.obs["day"] != held_out].copy()
        ends.obsm["X_pca"] = ends.obsm["X_pca"][:, :dims] / scale
        tw.tl.fit(ends, "day", method=method, rng=seed, device="cpu")
        real = three.obsm["X_pca"][(three.obs["day"] == held_out).to_numpy(), :dims]
        for name, options in WAYS.items():
            predicted = tw.tl.interpolate(ends, held_out, rng=seed, **options)
            score = energy(predicted.obsm["X_pca"] * scale, real, predicted.obs["weight"].to_numpy())
            row = {"dims": dims, "method": method + name, "time": held_out, "seed": seed, "energy_distance": score}
            out.append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["otcfm", "usb"])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    tw.settings.progress = False
    tw.settings.verbosity = "warning"
    table = pd.DataFrame([row for dims in (50, 100) for row in rows(dims, args.methods, args.seeds)])
    by_seed = table.groupby(["dims", "method", "seed"])["energy_distance"].mean()
    summary = by_seed.groupby(["dims", "method"]).agg(["mean", "std"]).reset_index()
    print(tables.terminal(tables.frame_lines(summary, index=False)))
    result = results.head(vars(args), range(args.seeds))
    result |= {"published": PUBLISHED, "summary": summary.to_dict("records"), "rows": table.to_dict("records")}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
