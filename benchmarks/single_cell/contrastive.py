"""Contrastive flow matching (ΔFM) on cells: are conditions better separated, and at what cost in W1.

Protocol: an interior time is left out, an OT-CFM flow conditioned on a column of obs is fitted to the others with
negatives from another condition, and every cell of the time before is carried to it. Two figures: W1 to all real cells,
and the specificity, the mean over pairs of conditions of W1(predicted a, predicted b) / W1(real a, real b); 1 is right.
With ``undo`` the field is turned back into flow matching's.

    python benchmarks/single_cell/contrastive.py
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

RESULTS = results.path_of("contrastive_cells")
MIN_CELLS = 20  # of a condition at a time


def simulated() -> tuple[AnnData, str]:
    """The simulated course; the condition is the likeliest fate of a cell."""
    adata = tw.datasets.simulated(rng=0)
    adata.obs["condition"] = pd.Categorical(np.asarray(adata.obsm["fate_true"]).argmax(1).astype(str))
    return adata, "time"


def mef() -> tuple[AnnData, str]:
    """MEF reprogramming in 20 principal components; the condition is the cell type, where it is common enough."""
    import scanpy as sc

    adata = tw.datasets.mef_reprogramming()
    adata.uns.clear()
    sc.pp.pca(adata, n_comps=20, random_state=0)
    common = adata.obs["cell_type"].isin(["Stromal", "Epithelial", "unknown"])
    adata = adata[common].copy()
    adata.obs["condition"] = adata.obs["cell_type"].astype(str)
    return adata, "day"


def specificity(predicted: dict[str, np.ndarray], real: dict[str, np.ndarray]) -> float:
    """Mean over pairs of conditions of the distance between predictions over that between the real populations."""
    kept = [c for c in real if len(real[c]) >= MIN_CELLS and len(predicted.get(c, ())) >= MIN_CELLS]
    ratios = [
        tw.metrics.wasserstein(predicted[a], predicted[b]) / tw.metrics.wasserstein(real[a], real[b])
        for a, b in combinations(kept, 2)
    ]
    return float(np.mean(ratios))


def rows(name: str, adata: AnnData, time_key: str, weights: list[float], seeds: int) -> list[dict[str, object]]:
    """A row for each weight, with and without undo, held-out time and seed."""
    time = adata.obs[time_key].astype(float).to_numpy()
    variants = [(0.0, False)] + [(w, undo) for w in weights if w for undo in (False, True)]
    out = []
    for held_out in np.unique(time)[1:-1]:
        real_cells = adata[time == held_out]
        real = by_condition(real_cells)
        for (weight, undo), seed in tqdm([(v, s) for v in variants for s in range(seeds)], desc=f"{name} {held_out:g}"):
            train = adata[time != held_out].copy()
            option = tw.tl.Contrastive(weight, negatives="other_condition", undo=undo) if weight else None
            config = tw.tl.FitConfig(contrastive=option)
            tw.tl.fit(train, time_key, condition_key="condition", rng=seed, config=config, device="cpu")
            predicted = tw.tl.interpolate(train, float(held_out))
            row = {"data": name, "weight": weight, "undo": undo, "time": held_out, "seed": seed}
            row["w1"] = tw.metrics.wasserstein(predicted.obsm["X_pca"], real_cells.obsm["X_pca"])
            row["specificity"] = specificity(by_condition(predicted), real)
            out.append(row)
    return out


def by_condition(adata: AnnData) -> dict[str, np.ndarray]:
    """Coordinates of each condition."""
    return {c: adata.obsm["X_pca"][adata.obs["condition"] == c] for c in adata.obs["condition"].unique()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=float, nargs="*", default=[0.0, 0.05, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    tw.settings.progress = False
    tw.settings.verbosity = "warning"
    table = pd.DataFrame(
        [
            r
            for name, load in (("simulated", simulated), ("mef", mef))
            for r in rows(name, *load(), args.weights, args.seeds)
        ]
    )
    by_seed = table.groupby(["data", "weight", "undo", "seed"])[["w1", "specificity"]].mean()
    summary = by_seed.groupby(["data", "weight", "undo"]).agg(["mean", "std"])
    summary.columns = [f"{a}_{b}" for a, b in summary.columns]
    print(tables.terminal(tables.frame_lines(summary)))
    result = results.head(vars(args), range(args.seeds))
    result |= {"summary": summary.reset_index().to_dict("records"), "rows": table.to_dict("records")}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
