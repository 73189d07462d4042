"""Velocities and fates on simulated courses, whose drift and fates are known.

Velocities: the cosine with the true drift and the ratio of their lengths (median), over all cells, by branch and by
time. The drift is that of the SDE behind the data; the flow of an ODE moves the same populations by that drift less
half the squared diffusion times the score, so a cosine of one is not to be had. Fates: predicted probabilities of
the branches against the shares of simulated futures that reach each, for all cells, by time, and for the cells whose
fate is ``undecided`` (no branch gets nine in ten of their futures). Beside them: the vote of the nearest cells of the
last time (``kNN vote``), the shares of the branches at that time, the same for every cell (``last shares``), and, for
the noise of the truth itself, another draw of as many futures (``another draw``). ``, 60 neighbours`` averages the
futures of a cell's 60 nearest cells in place of 15. ``ece`` is the expected calibration error: ten equal bins of all
probabilities, weighted by their count; the bins of the first course are stored.

Beside the methods: torchcfm's OT-CFM and [SF]2M with its authors' settings (velocities are its network's, for [SF]2M
with the score added; fates share each end among the 15 nearest cells of the last time), and moscot's plans with the
settings of its tutorial, composed from day to day (``--moscot PYTHON`` names an interpreter that has it).

Diffusion: what ``usb`` recovers from 5 and 10 components of each course, beside the true one, in units of `FitConfig`.

    python benchmarks/single_cell/velocity.py --moscot PYTHON
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import peers, results, tables
from benchmarks.single_cell.fates import Floats, calibration, correlations, flow_fates, knn_vote

RESULTS = results.path_of("velocity")


def velocities(v: Floats, adata: AnnData) -> list[dict[str, object]]:
    """Cosine and length of the learned velocities, for groups of cells."""
    v, u = np.asarray(v, dtype=np.float64), np.asarray(adata.obsm["velocity_pca_true"], dtype=np.float64)
    sizes = np.linalg.norm(v, axis=1), np.linalg.norm(u, axis=1)
    cosine, ratio = (u * v).sum(1) / (sizes[0] * sizes[1]), sizes[0] / sizes[1]
    rows = []
    before = np.where(adata.obs["time"] < adata.obs["time"].max(), "before the last time", "at the last time")
    columns = {"all": np.full(adata.n_obs, "all"), "last": before} | {
        k: adata.obs[k].astype(str) for k in ("branch", "time")
    }
    for name, labels in columns.items():
        labels = np.asarray(labels)
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
        figures = correlations(p[keep], truth[keep]) | {"ece": calibration(p[keep], truth[keep])[0]}
        rows.append({"time": name} | {k: round(x, 4) for k, x in figures.items()})
    return rows


def another_draw(adata: AnnData) -> Floats:
    """As many futures once more: the error that the truth itself has."""
    truth = np.asarray(adata.obsm["fate_true"])
    return np.random.default_rng(0).multinomial(64, truth / truth.sum(1, keepdims=True)) / 64


def diffusion(seed: int) -> list[dict[str, object]]:
    """The diffusion that a short fit recovers, and the true one, by component."""
    rows: list[dict[str, object]] = []
    for n_pcs in (5, 10):
        adata = tw.datasets.simulated(rng=seed, n_pcs=n_pcs)
        tw.tl.fit(adata, "time", method="usb", config=tw.tl.FitConfig(max_steps=1), rng=seed, device="cpu")
        found = adata.uns["thalweg"]
        stored, unit = adata.uns["simulated"], np.ptp(adata.obs["time"]) / (adata.obs["time"].nunique() - 1)
        per_time = float(stored["sde"]["sigma"]) * np.linalg.norm(stored["latent_to_pca"], axis=0)
        true = per_time * np.sqrt(unit) / float(found["scale"])
        for j, (a, b) in enumerate(zip(found["diffusion"], true, strict=True)):
            row = {"n_pcs": n_pcs, "component": j, "sigma": round(float(a), 4), "true": round(float(b), 4)}
            rows.append({"seed": seed} | row)
    return rows


def torchcfm(adata: AnnData, method: str, seed: int, names: list[str]) -> tuple[Floats, Floats]:
    """Velocities and fates of a torchcfm model of the course."""
    import torch
    from benchmarks.single_cell.torchcfm_fit import PeerSettings, fit_torchcfm

    x, time = np.asarray(adata.obsm["X_pca"], dtype=np.float64), adata.obs["time"].to_numpy()
    x, times = x - x.mean(0), np.unique(time)
    model = fit_torchcfm(method, [x[time == t] for t in times], times.tolist(), seed, PeerSettings())
    with torch.no_grad():
        at = torch.as_tensor(np.c_[x, time], dtype=torch.float32)
        v = model.flow(at) if model.score is None else model.flow(at) + model.score(at)
    last, labels = time == times[-1], adata.obs["branch"].astype(str).to_numpy()
    draws = 1 if model.score is None else 20
    p = np.zeros((len(x), len(names)))
    for t in times:
        for _ in range(draws):
            ends = x[time == t] if t == times[-1] else model.push(x[time == t], t, times[-1], stochastic=draws > 1)
            both = np.concatenate([x[last], ends])
            own = np.r_[np.ones(last.sum(), dtype=bool), np.zeros(len(ends), dtype=bool)]
            p[time == t] += knn_vote(both, own, np.r_[labels[last], labels[time == t]], names)[~own] / draws
    return v.numpy(), p


def moscot(adata: AnnData, names: list[str], python: Path) -> tuple[Floats, dict[str, Any]]:
    """Fates along moscot's plans, computed by an interpreter that has it, and what it was run with."""
    with TemporaryDirectory() as folder:
        labels = adata.obs["branch"].astype(str).to_numpy()
        groups = np.stack([labels == name for name in names], 1).astype(float)
        np.savez(Path(folder) / "course.npz", x=adata.obsm["X_pca"], time=adata.obs["time"], groups=groups)
        said = peers.run("moscot", "benchmarks.single_cell.moscot_fates", str(python), [Path(folder) / "course.npz"])
        found: Floats = np.load(Path(folder) / "fates.npy", allow_pickle=False)
    return found, said.record


def _summary(rows: list[dict[str, object]], by: list[str]) -> pd.DataFrame:
    """Mean over courses, and the standard deviation of the first figure."""
    frame = pd.DataFrame(rows).drop(columns="seed").groupby(by)
    first = "cosine" if "group" in by else "correlation"
    return frame.mean(numeric_only=True).assign(sd=frame[first].std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["icfm", "otcfm", "uotcfm", "sf2m", "usb"])
    parser.add_argument("--courses", type=int, default=3, help="simulated courses, each with a fit")
    parser.add_argument("--torchcfm", nargs="*", default=["otcfm", "sf2m"], help="methods of torchcfm beside them")
    parser.add_argument("--moscot", metavar="PYTHON", type=Path, help="an interpreter that has moscot")
    args = parser.parse_args()
    if args.torchcfm:
        peers.require("torchcfm")
    tw.settings.progress, tw.settings.verbosity = False, "error"
    velocity_rows, fate_rows, sigma_rows, bins = [], [], [], {}
    used = {"torchcfm": peers.record("torchcfm")} if args.torchcfm else {}
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
        learned: dict[str, Floats] = {}
        for method in args.methods:
            tw.tl.fit(adata, "time", method=method, rng=seed, device="cpu")
            tw.tl.velocity(adata)
            learned[method] = adata.obsm["velocity_X_pca"]
            predicted |= flow_fates(adata, method, "branch", names, seed)
        for method in args.torchcfm:
            name = f"torchcfm {method}"
            learned[name], predicted[name] = torchcfm(adata, method, seed, names)
        if args.moscot:
            predicted["moscot"], used["moscot"] = moscot(adata, names, args.moscot)
        sigma_rows += diffusion(seed)
        velocity_rows += [{"method": m, "seed": seed} | row for m, v in learned.items() for row in velocities(v, adata)]
        early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
        for m, p in predicted.items():
            bins.setdefault(m, calibration(p[early], adata.obsm["fate_true"][early])[1])
        fate_rows += [{"method": m, "seed": seed} | row for m, p in predicted.items() for row in fates(p, adata)]
    speed, fate = (
        _summary(rows, by) for rows, by in ((velocity_rows, ["by", "group", "method"]), (fate_rows, ["time", "method"]))
    )
    print(*(tables.terminal(tables.frame_lines(frame)) for frame in (speed, fate)), sep="\n\n")
    result = results.head(vars(args), range(args.courses))
    result |= {name: f.round(4).reset_index().to_dict("records") for name, f in (("velocity", speed), ("fate", fate))}
    result |= {"velocity_rows": velocity_rows, "fate_rows": fate_rows, "diffusion": sigma_rows, "calibration": bins}
    result["peers"] = used
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
