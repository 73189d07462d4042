"""Velocities and fates on simulated courses, whose drift and fates are known.

Velocities: the cosine with the true drift and the ratio of their lengths (median), over all cells, by branch and by
time. The drift is that of the SDE behind the data; the flow of an ODE moves the same populations by that drift less
half the squared diffusion times the score, so a cosine of one is not to be had. Fates: predicted probabilities of
the branches against the shares of simulated futures that reach each, for all cells, by time, and for the cells whose
fate is ``undecided`` (no branch gets nine in ten of their futures). Beside them: the vote of the nearest cells of the
last time (``kNN vote``), the shares of the branches at that time, the same for every cell (``last shares``), and, for
the noise of the truth itself, another draw of as many futures (``another draw``). ``, 60 neighbours`` averages the
futures of a cell's 60 nearest cells in place of 15.

    python benchmarks/single_cell/velocity.py
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
from benchmarks.single_cell.fates import Floats, correlations, flow_fates, knn_vote

RESULTS = results.path_of("velocity")


def velocities(adata: AnnData) -> list[dict[str, object]]:
    """Cosine and length of the learned velocities, for groups of cells."""
    tw.tl.velocity(adata)
    v, u = (np.asarray(adata.obsm[k], dtype=np.float64) for k in ("velocity_X_pca", "velocity_pca_true"))
    sizes = np.linalg.norm(v, axis=1), np.linalg.norm(u, axis=1)
    cosine, ratio = (u * v).sum(1) / (sizes[0] * sizes[1]), sizes[0] / sizes[1]
    rows = []
    for name, column in (("all", None), ("branch", "branch"), ("time", "time")):
        labels = np.full(adata.n_obs, "all") if column is None else adata.obs[column].astype(str).to_numpy()
        for group in np.unique(labels):
            keep = labels == group
            figures = {"cosine": cosine[keep].mean(), "median_cosine": np.median(cosine[keep]), "length_ratio": np.median(ratio[keep])}  # fmt: skip  # noqa: E501
            rows.append(
                {"by": name, "group": group, "n": int(keep.sum())} | {k: round(float(x), 4) for k, x in figures.items()}
            )
    return rows


def fates(p: Floats, adata: AnnData) -> list[dict[str, object]]:
    """Scores of the fates at each time but the last."""
    truth, time = np.asarray(adata.obsm["fate_true"]), adata.obs["time"].to_numpy()
    early = time < time.max()
    groups = {"all": early, "undecided": early & (truth.max(1) < 0.9)}
    rows = []
    for name, keep in (groups | {f"{t:g}": time == t for t in np.unique(time)[:-1]}).items():
        rows.append({"time": name} | {k: round(x, 4) for k, x in correlations(p[keep], truth[keep]).items()})
    return rows


def another_draw(adata: AnnData) -> Floats:
    """As many futures once more: the error that the truth itself has."""
    truth = np.asarray(adata.obsm["fate_true"])
    return np.random.default_rng(0).multinomial(64, truth / truth.sum(1, keepdims=True)) / 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["icfm", "otcfm", "uotcfm", "sf2m"])
    parser.add_argument("--courses", type=int, default=3, help="simulated courses, each with a fit")
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    velocity_rows, fate_rows = [], []
    for seed in range(args.courses):
        adata = tw.datasets.simulated(rng=seed)
        names = list(map(str, adata.uns["simulated"]["fates"]))
        last, labels = (
            (adata.obs["time"] == adata.obs["time"].max()).to_numpy(),
            adata.obs["branch"].astype(str).to_numpy(),
        )
        shares = np.array([(labels[last] == name).mean() for name in names])
        predicted = {
            "kNN vote": knn_vote(adata.obsm["X_pca"], last, labels, names),
            "last shares": np.tile(shares / shares.sum(), (adata.n_obs, 1)),
            "another draw": another_draw(adata),
        }
        for method in args.methods:
            tw.tl.fit(adata, "time", method=method, rng=seed, device="cpu")
            velocity_rows += [{"method": method, "seed": seed} | row for row in velocities(adata)]
            predicted |= flow_fates(adata, method, "branch", names, seed)
        fate_rows += [{"method": m, "seed": seed} | row for m, p in predicted.items() for row in fates(p, adata)]
    speed = pd.DataFrame(velocity_rows).groupby(["by", "group", "method"]).mean(numeric_only=True).drop(columns="seed")
    fate = pd.DataFrame(fate_rows).groupby(["time", "method"]).mean(numeric_only=True).drop(columns="seed")
    print(*(tables.terminal(tables.frame_lines(frame)) for frame in (speed, fate)), sep="\n\n")
    result = results.head(vars(args), range(args.courses))
    result |= {name: f.round(4).reset_index().to_dict("records") for name, f in (("velocity", speed), ("fate", fate))}
    result |= {"velocity_rows": velocity_rows, "fate_rows": fate_rows}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
