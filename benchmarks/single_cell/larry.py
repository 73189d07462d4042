"""Predicted fates against clones: the LARRY subset, whose barcodes say which cells are sisters.

The clones take no part in any fit. Scored are the cells of days 2 and 4 whose clone has cells of a terminal type on day
6; the shares of those types among them are the clonal fate of the cell. Figures, for all such cells and for those that
are called undifferentiated when observed:

- the correlation of predicted probabilities with clonal shares over cells and types, the mean over types of the same,
  and the mean probability given to the clone's fate;
- the share of sister pairs (one clone, one day) sent to the same type, beside that of pairs that are no sisters.

Baselines: ``kNN vote``, the types of the 15 nearest cells of day 6 in the same components, no time and no flow;
``plan``, the optimal transport plan composed over the days, no network; ``day 6 shares``, the same for every cell;
``shuffled``, the predictions of otcfm among the cells of a day. ``, 60 neighbours`` averages the futures of a cell's 60
nearest cells in place of 15. Intervals: 95 % of 1,000 resamplings of the clones.

    python benchmarks/single_cell/larry.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables
from benchmarks.single_cell.fates import Floats, correlations, flow_fates, knn_vote, same_way

RESULTS = results.path_of("larry")
TERMINAL = ["Baso", "Mast", "Meg", "Monocyte", "Neutrophil"]  # types with 10 or more cells on day 6
DRAWS = 1000


def course(dims: int) -> AnnData:
    """Cells, days and types; the clones are taken out."""
    adata = tw.datasets.larry()
    out = AnnData(obs=adata.obs[["time_info", "state_info"]].copy())
    out.obsm["X_pca"] = np.asarray(adata.obsm["X_pca"], dtype=np.float64)[:, :dims]
    return out


def clones() -> np.ndarray:
    """Clone of each cell."""
    return np.asarray(tw.datasets.larry().obsm["X_clone"].argmax(1)).ravel()


def predictions(adata: AnnData, methods: list[str], seeds: int) -> Iterator[tuple[str, int, Floats]]:
    """Fates of all cells by each method and seed, then by the baselines."""
    last = (adata.obs["time_info"] == "6").to_numpy()
    labels = adata.obs["state_info"].astype(str).to_numpy()
    for method in methods:
        for seed in range(seeds):
            tw.tl.fit(adata, "time_info", method=method, rng=seed, device="cpu")
            found = flow_fates(adata, method, "state_info", TERMINAL, seed)
            yield from ((name, seed, p) for name, p in found.items())
            if method == "otcfm":
                order = np.arange(adata.n_obs)
                for day in ("2", "4"):
                    rows = np.flatnonzero(adata.obs["time_info"] == day)
                    order[rows] = np.random.default_rng(seed).permutation(rows)
                yield "shuffled", seed, found[method][order]
                if seed == 0:
                    yield "plan", 0, along_plans(adata, labels)
    yield "kNN vote", 0, knn_vote(adata.obsm["X_pca"], last, labels, TERMINAL)
    share = np.array([((labels == g) & last).sum() for g in TERMINAL], dtype=float)
    yield "day 6 shares", 0, np.tile(share / share.sum(), (adata.n_obs, 1))


def along_plans(adata: AnnData, labels: np.ndarray) -> Floats:
    """Shares of the types at the end of the optimal plans."""
    tw.tl.transition(adata, kind="plan")
    steps = tw.get.couplings(adata)
    rows = {day: np.flatnonzero(adata.obs["time_info"] == f"{day:g}") for day in (2, 4, 6)}
    p = np.zeros((adata.n_obs, len(TERMINAL)))
    p[rows[6]] = np.stack([labels[rows[6]] == g for g in TERMINAL], 1)
    p[rows[4]] = steps[4.0, 6.0] @ p[rows[6]]
    p[rows[2]] = steps[2.0, 4.0] @ p[rows[4]]
    total = p.sum(1, keepdims=True)
    return np.divide(p, total, out=np.full_like(p, 1 / len(TERMINAL)), where=total > 0)


def clonal_fates(adata: AnnData, clone: np.ndarray) -> tuple[np.ndarray, Floats]:
    """Rows of the cells to score, and the shares of the types in their clones on day 6."""
    day, labels = adata.obs["time_info"].astype(int).to_numpy(), adata.obs["state_info"].astype(str).to_numpy()
    counts = np.zeros((clone.max() + 1, len(TERMINAL)))
    for k, g in enumerate(TERMINAL):
        np.add.at(counts[:, k], clone[(day == 6) & (labels == g)], 1)
    rows = np.flatnonzero((day < 6) & (counts[clone].sum(1) > 0))
    truth = counts[clone[rows]]
    return rows, truth / truth.sum(1, keepdims=True)


def score(p: Floats, truth: Floats, clone: np.ndarray, time: Floats) -> dict[str, float]:
    """All figures, with intervals of the correlation."""
    out = correlations(p, truth)
    out["sisters_same_way"], out["others_same_way"], out["sister_pairs"] = same_way(p, clone, time)
    names, rng = np.unique(clone), np.random.default_rng(0)
    members = {c: np.flatnonzero(clone == c) for c in names}
    drawn = [np.concatenate([members[c] for c in rng.choice(names, len(names))]) for _ in range(DRAWS)]
    values = [correlations(p[rows], truth[rows])["correlation"] for rows in drawn]
    out["correlation_low"], out["correlation_high"] = (
        np.nanquantile(values, [0.025, 0.975]) if p.std() else (np.nan,) * 2
    )
    return {k: round(float(v), 4) for k, v in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["otcfm", "uotcfm", "sf2m"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dims", type=int, nargs="*", default=[10, 40])
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    rows = []
    clone = clones()
    for dims in args.dims:
        adata = course(dims)
        chosen, truth = clonal_fates(adata, clone)
        time, early = (
            adata.obs["time_info"].astype(float).to_numpy()[chosen],
            adata.obs["state_info"].to_numpy()[chosen],
        )
        subsets = {"all": np.ones(len(chosen), dtype=bool), "undifferentiated": early == "undiff"}
        for method, seed, p in predictions(adata, args.methods, args.seeds):
            for name, keep in subsets.items():
                figures = score(p[chosen][keep], truth[keep], clone[chosen][keep], time[keep])
                rows.append(
                    {"dims": dims, "cells": name, "n": int(keep.sum()), "method": method, "seed": seed} | figures
                )
    table = pd.DataFrame(rows)
    summary = table.groupby(["dims", "cells", "method"]).mean(numeric_only=True).drop(columns="seed").round(4)
    print(tables.terminal(tables.frame_lines(summary)))
    result = results.head(vars(args), range(args.seeds))
    result |= {"protocol": " ".join(__doc__.split("\n\n")[1].split()), "terminal": TERMINAL}
    result |= {"summary": summary.reset_index().to_dict("records"), "rows": rows}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
