"""Does a rebuilt package compute what it computed? Predictions of every method on fixed seeds, stored and compared.

    python -m benchmarks.reliability.unchanged store before.npz      # with the old code
    python -m benchmarks.reliability.unchanged compare before.npz    # with the new one, on the same machine

It calls public functions only, so both versions can run it. Arrays are compared bit for bit; the table that ``compare``
prints has a line for each array that differs, with the largest difference, and its exit status is then 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData

import thalweg as tw

METHODS = ("otcfm", "icfm", "vpcfm", "uotcfm", "sbcfm", "sf2m", "usb", "am", "eam", "uam", "fm")
CONFIG = tw.tl.FitConfig(max_steps=40, batch_size=64, width=16, depth=2, validate_every=20)
TIMES = (0.0, 1.0, 3.0, 4.0)
Arrays = Iterator[tuple[str, np.ndarray]]


def course(n: int = 50, dims: int = 3, seed: int = 0) -> AnnData:
    """Two branches that part, with weights, rates, conditions, and times also as text."""
    rng = np.random.default_rng(seed)
    time = np.repeat(TIMES, n)
    branch = np.tile(np.arange(n) % 2, len(TIMES))
    x = 0.5 * rng.standard_normal((len(time), dims))
    x[:, 0] += 2 * time
    x[:, 1] += time * (branch - 0.5)
    obs = {
        "time": time,
        "text": [f"day {t:g}" for t in time],
        "branch": pd.Categorical(np.where(branch, "B", "A")),
        "condition": np.where(rng.random(len(time)) < 0.5, "control", "treated"),
        "weight": rng.uniform(0.5, 2.0, len(time)),
        "rate": rng.normal(0.0, 0.2, len(time)),
    }
    return AnnData(obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(len(time))]), obsm={"X_pca": x})


def after_the_fit(adata: AnnData, method: str) -> Arrays:
    """What the functions give on the fit under ``uns["thalweg"]``."""
    rep, rng = "X_pca", {"rng": 1}
    for name, options in {
        "between": {"both_ends": False},
        "both ends": {},
        "sample": {"prediction": "sample"},
        "backwards": {"source_time": 3.0},
    }.items():
        cells = tw.tl.interpolate(adata, 2.2, **options, **rng)
        yield f"interpolate {name}", np.column_stack([cells.obsm[rep], cells.obs["weight"]])
        yield f"interpolate {name} sources", cells.obs["source"].to_numpy().astype(str)
    tw.tl.velocity(adata)
    yield "velocity", adata.obsm[f"velocity_{rep}"]
    start = {"cells": {"text": "day 1"}, "n_times": 9, "direction": "both"}
    paths = tw.tl.trajectories(adata, **start)
    yield "trajectories", np.column_stack([paths.obsm[rep], paths.obs["weight"]])
    if method in ("sf2m", "eam"):
        noisy = tw.tl.trajectories(adata, **start, stochastic=True, n_samples=2, **rng)
        yield "trajectories of the SDE", np.column_stack([noisy.obsm[rep], noisy.obs["weight"]])
        cells = tw.tl.interpolate(adata, 2.2, both_ends=False, stochastic=0.5, **rng)
        yield "interpolate by the SDE", np.column_stack([cells.obsm[rep], cells.obs["weight"]])
    tw.tl.fate(adata, "branch", **rng)
    yield "fate", adata.obsm["fate_branch"].to_numpy()
    for kind in ("flow", "plan"):
        if kind == "plan" and method in ("icfm", "vpcfm", "fm"):
            continue
        tw.tl.transition(adata, kind=kind, **rng)
        yield f"transition {kind}", adata.obsp["transition"].toarray()
    tw.tl.descendants(adata, {"text": "day 0", "branch": "A"})
    tw.tl.ancestors(adata, {"text": "day 4", "branch": "A"})
    yield "lineage", adata.obs[["descendants", "ancestors"]].to_numpy()
    tw.tl.log_likelihood(adata)
    yield "log likelihood", adata.obs["log_likelihood"].to_numpy()


COURSES = {
    "plain": {"time_key": "time"},
    "weights": {"time_key": "time", "weight_key": "weight"},
    "rates": {"time_key": "time", "growth_key": "rate", "weight_key": "weight"},
    "conditions": {"time_key": "time", "condition_key": "condition", "spacing": "index"},
    "text": {"time_key": "text", "time_map": {f"day {t:g}": t for t in TIMES}, "n_dims": 2},
}


def everything() -> Arrays:
    """All arrays, each with its name."""
    for name, options in COURSES.items():
        for method in METHODS if name == "plain" else ("otcfm", "uotcfm", "sf2m", "fm"):
            adata, arguments = course(), dict(options)
            tw.tl.fit(adata, arguments.pop("time_key"), method=method, rng=0, config=CONFIG, **arguments)
            history = adata.uns["thalweg"]["history"]
            yield f"{name} {method} loss", history["loss"].to_numpy()
            for what, values in after_the_fit(adata, method):
                yield f"{name} {method} {what}", values
    for name, options in COURSES.items():
        adata, arguments = course(), dict(options)
        key = arguments.pop("time_key")
        scores = tw.tl.leave_one_out(
            adata, key, methods=("otcfm", "uotcfm", "sf2m"), n_seeds=2, config=CONFIG, **arguments
        )
        yield f"leave_one_out {name}", scores[["w1", "w1_both_ends", "energy_distance", "variance_ratio"]].to_numpy()
    adata = course()
    tw.pp.growth(adata, method="unbalanced", time_key="time", condition_key="condition")
    yield "growth", adata.obs[["growth", "growth_weight"]].to_numpy()


def main() -> None:
    tw.settings.progress, tw.settings.verbosity = False, "error"
    what, path = sys.argv[1:]
    found = dict(everything())
    if what == "store":
        np.savez_compressed(path, **found)
        print(f"{len(found)} arrays stored in {path}")
        return
    stored = np.load(path)
    changed = []
    for name in sorted(set(stored.files) | set(found)):
        if name not in found or name not in stored.files:
            changed.append(f"{name}: only {'before' if name not in found else 'now'}")
        elif stored[name].shape != found[name].shape:
            changed.append(f"{name}: shape {stored[name].shape} before, {found[name].shape} now")
        elif not np.array_equal(stored[name], found[name], equal_nan=found[name].dtype.kind == "f"):
            text = found[name].dtype.kind != "f"
            gap = "text" if text else f"largest difference {np.nanmax(np.abs(stored[name] - found[name])):.3g}"
            changed.append(f"{name}: {gap}")
    print("\n".join(changed) or f"all {len(found)} arrays are equal to the bit")
    raise SystemExit(bool(changed))


if __name__ == "__main__":
    main()
