"""Predicted fates against clones: the LARRY subset, whose barcodes say which cells are sisters.

Barcodes take no part in any fit, and the clones of scored cells none at all: they are cut into folds, a fit sees the
cells of the others, and its fates are those of the early cells of the clones left out. Scored are the cells of days 2
and 4 whose clone has cells of a terminal type on day 6; the shares of those types among them are the clonal fate of the
cell. Figures, for all such cells and for those that are called undifferentiated when observed:

- the correlation of predicted probabilities with clonal shares over cells and types, the mean over types of the same,
  and the mean probability given to the clone's fate;
- the share of sister pairs (one clone, one day) sent to the same type, beside that of pairs that are no sisters.

``difference`` is the correlation of usb less that of another row, on the same resampled clones.

Baselines: ``kNN vote``, the types of the 15 nearest cells of day 6 in the same components, no time and no flow;
``plan``, the optimal transport plan composed over the days, no network; ``day 6 shares``, the same for every cell;
``shuffled``, the predictions of otcfm among the cells of a day. A method whose plan does not converge in
some fold is named and left out. ``, 60 neighbours`` averages the futures of a cell's 60
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
from numpy.typing import NDArray
from tqdm.auto import tqdm

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables
from benchmarks.single_cell.fates import Floats, correlations, flow_fates, knn_vote, same_way

RESULTS = results.path_of("larry")
TERMINAL = ["Baso", "Mast", "Meg", "Monocyte", "Neutrophil"]  # types with 10 or more cells on day 6
DRAWS = 1000
Rows = NDArray[np.int64]


def course(dims: int) -> AnnData:
    """Cells, days and types; the clones are taken out."""
    adata = tw.datasets.larry()
    out = AnnData(obs=adata.obs[["time_info", "state_info"]].copy())
    out.obsm["X_pca"] = np.asarray(adata.obsm["X_pca"], dtype=np.float64)[:, :dims]
    return out


def clones() -> np.ndarray:
    """Clone of each cell."""
    return np.asarray(tw.datasets.larry().obsm["X_clone"].argmax(1)).ravel()


def predictions(
    adata: AnnData, clone: Rows, methods: list[str], seeds: int, folds: int
) -> Iterator[tuple[str, int, Floats]]:
    """Fates of all cells by each method and seed, then by the baselines; each cell by a fit without its clone."""
    parts = np.array_split(np.random.default_rng(0).permutation(np.unique(clone)), folds)
    early = (adata.obs["time_info"] != "6").to_numpy()
    found: dict[tuple[str, int], Floats] = {}
    for part in tqdm(parts, desc="folds"):
        out = np.isin(clone, part)
        scored = np.flatnonzero(out & early)
        train, course = adata[~out].copy(), adata[~out | (out & early)].copy()
        own = course.obs_names.get_indexer(adata.obs_names[scored])
        for (name, seed), p in fold(train, course, methods, seeds):
            found.setdefault((name, seed), np.full((adata.n_obs, len(TERMINAL)), np.nan))[scored] = p[own]
    whole = {key: p for key, p in found.items() if np.isfinite(p[early]).all()}  # or a fold has no answer
    yield from ((name, seed, p) for (name, seed), p in whole.items())


def fold(train: AnnData, course: AnnData, methods: list[str], seeds: int) -> Iterator[tuple[tuple[str, int], Floats]]:
    """Fates of the cells of a course by fits to a part of them."""
    last = (course.obs["time_info"] == "6").to_numpy()
    labels = course.obs["state_info"].astype(str).to_numpy()
    for method in methods:
        for seed in range(seeds):
            try:
                tw.tl.fit(train, "time_info", method=method, rng=seed, device="cpu")
            except tw.errors.NotConvergedError as error:
                print(f"{method}: {error}")
                continue
            course.uns["thalweg"] = train.uns["thalweg"]
            found = flow_fates(course, method, "state_info", TERMINAL, seed)
            yield from (((name, seed), p) for name, p in found.items())
            if method == "otcfm":
                order = np.arange(course.n_obs)
                for day in ("2", "4"):
                    rows = np.flatnonzero(course.obs["time_info"] == day)
                    order[rows] = np.random.default_rng(seed).permutation(rows)
                yield ("shuffled", seed), found[method][order]
                if seed == 0:
                    yield ("plan", 0), along_plans(course, labels)
    yield ("kNN vote", 0), knn_vote(course.obsm["X_pca"], last, labels, TERMINAL)
    share = np.array([((labels == g) & last).sum() for g in TERMINAL], dtype=float)
    yield ("day 6 shares", 0), np.tile(share / share.sum(), (course.n_obs, 1))


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


def clonal_counts(adata: AnnData, clone: np.ndarray) -> tuple[np.ndarray, Floats]:
    """Rows of the cells to score, and how many cells of each type their clones have on day 6."""
    day, labels = adata.obs["time_info"].astype(int).to_numpy(), adata.obs["state_info"].astype(str).to_numpy()
    counts = np.zeros((clone.max() + 1, len(TERMINAL)))
    for k, g in enumerate(TERMINAL):
        np.add.at(counts[:, k], clone[(day == 6) & (labels == g)], 1)
    rows = np.flatnonzero((day < 6) & (counts[clone].sum(1) > 0))
    return rows, counts[clone[rows]]


def clonal_fates(adata: AnnData, clone: np.ndarray) -> tuple[np.ndarray, Floats]:
    """Rows of the cells to score, and the shares of the types in their clones on day 6."""
    rows, counts = clonal_counts(adata, clone)
    return rows, counts / counts.sum(1, keepdims=True)


def score(p: Floats, truth: Floats, clone: np.ndarray, time: Floats) -> dict[str, float]:
    """All figures, with intervals of the correlation."""
    out = correlations(p, truth)
    out["sisters_same_way"], out["others_same_way"], out["sister_pairs"] = same_way(p, clone, time)
    values = [correlations(p[rows], truth[rows])["correlation"] for rows in resampled(clone)]
    out["correlation_low"], out["correlation_high"] = (
        np.nanquantile(values, [0.025, 0.975]) if p.std() else (np.nan,) * 2
    )
    return {k: round(float(v), 4) for k, v in out.items()}


def resampled(clone: Rows) -> list[Rows]:
    """Rows of the cells of clones drawn anew, the same draws at every call."""
    names, rng = np.unique(clone), np.random.default_rng(0)
    members = {c: np.flatnonzero(clone == c) for c in names}
    return [np.concatenate([members[c] for c in rng.choice(names, len(names))]) for _ in range(DRAWS)]


def difference(p: Floats, other: Floats, truth: Floats, clone: Rows) -> dict[str, float]:
    """Correlation less that of another, and its interval over clones drawn anew for both."""
    values = [
        correlations(p[rows], truth[rows])["correlation"] - correlations(other[rows], truth[rows])["correlation"]
        for rows in [np.arange(len(p)), *resampled(clone)]
    ]
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return {"difference": round(values[0], 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["otcfm", "uotcfm", "sf2m", "usb"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dims", type=int, nargs="*", default=[10, 40])
    parser.add_argument("--folds", type=int, default=5, help="parts of the clones")
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    rows, paired = [], []
    clone = clones()
    for dims in args.dims:
        adata = course(dims)
        chosen, truth = clonal_fates(adata, clone)
        time, early = (
            adata.obs["time_info"].astype(float).to_numpy()[chosen],
            adata.obs["state_info"].to_numpy()[chosen],
        )
        subsets = {"all": np.ones(len(chosen), dtype=bool), "undifferentiated": early == "undiff"}
        found = list(predictions(adata, clone, args.methods, args.seeds, args.folds))
        first = {method: p for method, seed, p in found if seed == 0}
        for method in ("otcfm", "kNN vote"):
            for name, keep in subsets.items():
                if {"usb", method} <= first.keys():
                    two = (first[m][chosen][keep] for m in ("usb", method))
                    paired.append(
                        {"dims": dims, "cells": name, "than": method}
                        | difference(*two, truth[keep], clone[chosen][keep])
                    )
        for method, seed, p in found:
            for name, keep in subsets.items():
                figures = score(p[chosen][keep], truth[keep], clone[chosen][keep], time[keep])
                rows.append(
                    {"dims": dims, "cells": name, "n": int(keep.sum()), "method": method, "seed": seed} | figures
                )
    table = pd.DataFrame(rows)
    summary = table.groupby(["dims", "cells", "method"]).mean(numeric_only=True).drop(columns="seed").round(4)
    print(tables.terminal(tables.frame_lines(summary)))
    print(tables.terminal(tables.frame_lines(pd.DataFrame(paired))))
    result = results.head(vars(args), range(args.seeds))
    result |= {"protocol": " ".join(__doc__.split("\n\n")[1].split()), "terminal": TERMINAL}
    result |= {"summary": summary.reset_index().to_dict("records"), "rows": rows, "paired": paired}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
