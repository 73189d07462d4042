"""Growth: whether fits return the populations and the masses they saw, and whether their growth is the true one.

On the toggle switch, with and without the sizes of its populations: all cells of time 0 are carried through the others,
and each population is compared with the observed one (``W1``), its mass with the true size, and ``obs["growth_rate"]``
of all cells with the true rate (correlation). On the simulated course, where no cell divides: the spread of the log
weights at time 1 (``sd of log weight``), and the W1 there. On four toy courses: how much of a pure translation the
velocity keeps, what comes back where a cluster vanishes or arrives, and the growth of a cluster that doubles.

moscot (``--moscot PYTHON``): its unbalanced plans with the settings of its tutorial between the same cells, one unit of
mass each. The descendants of each cell are compared with the true rates, and the masses of the plans with the sizes.

    python benchmarks/single_cell/growth.py --moscot PYTHON
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
from numpy.typing import NDArray

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import peers, results, tables

RESULTS = results.path_of("growth")
Floats = NDArray[np.float64]
Row = dict[str, Any]
_SIZES = {  # of a cluster at the origin and one ten spreads away, at both times
    "translation": ((800, 0), (800, 0)),
    "vanishing": ((640, 160), (800, 0)),
    "arriving": ((800, 0), (640, 160)),
    "growing": ((400, 400), (400, 800)),
}


def carried(adata: AnnData, method: str) -> list[Row]:
    """All cells of the first time at every later one: W1 to the observed population, mass and spread of log weights."""
    times = np.unique(adata.obs["time"])
    paths = tw.tl.trajectories(adata, times=times, stochastic=None if method == "usb" else False, rng=0)
    sizes, rows = adata.uns["thalweg"]["reconstruction"].set_index("time"), []
    for t in times[1:]:
        here, real = paths[paths.obs["time"] == t], adata[adata.obs["time"] == t]
        weight = here.obs["weight"].to_numpy()
        w1 = tw.metrics.wasserstein(here.obsm["X_pca"], real.obsm["X_pca"], weights_x=weight)
        rows.append({"time": t, "w1": w1, "log_weight_sd": float(np.log(weight).std())})
        rows[-1] |= {"mass": sizes["mass"][t], "mass_error": sizes["mass_error"][t]}
    return rows


def toggle(method: str, seed: int, *, sized: bool) -> list[Row]:
    """The toggle switch."""
    adata = tw.datasets.toggle_switch(rng=seed)
    sizes = "population_size" if sized else None
    tw.tl.fit(adata, "time", method=method, population_size=sizes, rng=seed)
    tw.tl.velocity(adata, genes=False)
    rates, early = adata.obs[["growth_rate", "growth_true"]], adata.obs["time"] < adata.obs["time"].max()
    r, before = (float(found.corr().iloc[0, 1]) for found in (rates, rates[early]))
    figures = {"growth_correlation": r, "growth_correlation_before_the_last_time": before}
    return [row | figures for row in carried(adata, method)]


def undivided(method: str, seed: int) -> list[Row]:
    """The simulated course, where no cell divides."""
    adata = tw.datasets.simulated(rng=seed)
    tw.tl.fit(adata, "time", method=method, rng=seed)
    return carried(adata, method)


def toy(kind: str, seed: int) -> tuple[AnnData, dict[str, float]]:
    """Two times of clusters of unit spread in two dimensions, 800 cells each or as many as there are."""
    rng, (first, second) = np.random.default_rng(seed), _SIZES[kind]
    clouds = []
    for t, (n, m) in enumerate((first, second)):
        x = rng.standard_normal((n + m, 2))
        x[n:, 0] += 10
        clouds.append(x + np.array([5.0 * t * (kind == "translation"), 0]))
    time = np.repeat([0.0, 1.0], [len(x) for x in clouds])
    far = np.concatenate([np.arange(n + m) >= n for n, m in (first, second)])
    obs = pd.DataFrame({"time": time, "far": far}, index=[f"cell_{i}" for i in range(len(time))])
    adata = AnnData(obs=obs, obsm={"X_pca": np.concatenate(clouds)})
    return adata, {"0": float(len(clouds[0])), "1": float(len(clouds[1]))}


def toys(method: str, seed: int) -> Row:
    """One figure of each toy course."""
    out: Row = {}
    for kind in ("translation", "vanishing", "arriving", "growing"):
        adata, sizes = toy(kind, seed)
        tw.tl.fit(adata, "time", method=method, population_size=sizes if kind == "growing" else None, rng=seed)
        tw.tl.velocity(adata, genes=False, kind="flow")
        back = adata.uns["thalweg"]["reconstruction"].iloc[0]
        if kind == "translation":
            v = adata[adata.obs["time"] == 0].obsm["velocity_X_pca"]
            out["translation_length"] = float(v[:, 0].mean() / 5)
        elif kind == "vanishing":
            end = tw.tl.interpolate(adata, 1.0, source_time=0.0)
            real = adata.obsm["X_pca"][adata.obs["time"] == 1]
            out["vanishing_w1"] = tw.metrics.wasserstein(
                end.obsm["X_pca"][end.obs["weight"] > 0], real, weights_x=end.obs["weight"][end.obs["weight"] > 0]
            )
            out["vanishing_w1_rolled_out"] = float(back["w1"])
        elif kind == "arriving":
            end = tw.tl.interpolate(adata, 1.0, source_time=0.0)
            out["arriving_share"] = float(end.obs["weight"][end.obsm["X_pca"][:, 0] > 5].sum() / 0.2)
            out["arriving_w1_rolled_out"] = float(back["w1"])
        else:
            first = adata.obs["time"] == 0
            truth = np.log(2) * adata.obs["far"][first]
            out["growing_correlation"] = float(np.corrcoef(adata.obs["growth_rate"][first], truth)[0, 1])
            out["growing_mass_error"] = float(back["mass_error"])
    return out


def moscot(python: Path, seed: int) -> tuple[list[Row], dict[str, Any]]:
    """Growth by moscot's plans on the toggle switch, computed by an interpreter that has it, and its settings."""
    adata = tw.datasets.toggle_switch(rng=seed)
    time = adata.obs["time"].to_numpy()
    with TemporaryDirectory() as folder:
        np.savez(Path(folder) / "course.npz", x=adata.obsm["X_pca"], time=time)
        said = peers.run("moscot", "benchmarks.single_cell.moscot_growth", str(python), [Path(folder) / "course.npz"])
        left = np.load(Path(folder) / "descendants.npy", allow_pickle=False)
    rows, sizes = [], adata.obs["time"].value_counts().sort_index().to_numpy()
    early = time < time.max()
    for plan, descendants in zip(said.record["settings"]["plans"], left, strict=True):
        mass = np.array([descendants[time == t].sum() for t in np.unique(time)[:-1]])
        r = float(np.corrcoef(descendants[early], adata.obs["growth_true"][early])[0, 1])
        error = float(np.abs(mass / sizes[1:] - 1).max())
        rows.append({"seed": seed} | plan | {"growth_correlation": r, "mass_error": error})
    return rows, said.record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["usb", "uotcfm", "uam"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--moscot", metavar="PYTHON", type=Path, help="an interpreter that has moscot")
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    rows: list[Row] = []
    small: list[Row] = []
    for method in args.methods:
        for seed in range(args.seeds):
            for name, found in (
                ("toggle switch, sizes given", toggle(method, seed, sized=True)),
                ("toggle switch", toggle(method, seed, sized=False)),
                ("simulated", undivided(method, seed)),
            ):
                rows += [{"course": name, "method": method, "seed": seed} | row for row in found]
            small.append({"method": method, "seed": seed} | toys(method, seed))
            print(pd.DataFrame(small[-1:]).to_string(), flush=True)
    table = pd.DataFrame(rows)
    worst = table.groupby(["course", "method", "seed"]).agg(
        w1=("w1", "max"), log_weight_sd=("log_weight_sd", "first"), mass_error=("mass_error", "max"),
        growth_correlation=("growth_correlation", "first"),
        correlation_early=("growth_correlation_before_the_last_time", "first"),
    )  # fmt: skip
    summary = worst.groupby(["course", "method"]).agg(["mean", "std", "max"]).round(4)
    summary.columns = ["_".join(name) for name in summary.columns]
    toy_summary = pd.DataFrame(small).drop(columns="seed").groupby("method").agg(["mean", "min", "max"]).round(4)
    toy_summary.columns = ["_".join(name) for name in toy_summary.columns]
    print(*(tables.terminal(tables.frame_lines(frame)) for frame in (summary, toy_summary.T)), sep="\n\n")
    result = results.head(vars(args), range(args.seeds))
    result |= {
        "summary": summary.reset_index().to_dict("records"),
        "toys": toy_summary.reset_index().to_dict("records"),
    }
    if args.moscot:
        found = [moscot(args.moscot, seed) for seed in range(args.seeds)]
        result |= {"moscot": [row for rows, _ in found for row in rows], "peers": {"moscot": found[0][1]}}
        print(pd.DataFrame(result["moscot"]).round(3).to_string())
    print(f"written: {results.save(RESULTS, result | {'rows': rows, 'toy_rows': small})}")


if __name__ == "__main__":
    main()
