"""Is the default the best choice on a course nobody has looked at? A hundred simulated courses, every method.

The courses are those of `family.py`, seeds 0 to 99. Each method runs with its defaults and one seed on each course, and
is scored three times:

- ``w1``: inner times left out (two of them at most, drawn by the seed), predicted from both ends, exact Wasserstein-1;
- ``drift``: cosine of `tw.tl.velocity` with the true drift, mean over the cells before the last time;
- ``fate``: Brier score of `tw.tl.fate`, mean over the cells before the last time; courses in a circle have none.

Beside the methods: the straight middle of the optimal plan (``ot-midpoint``, W1 alone), and torchcfm's OT-CFM and
[SF]2M with its authors' settings, whose prediction starts from the time before and whose fates are shared among the 15
nearest cells of the last time. These two take ten times as long as the others. They and action matching run on every
tenth course.

A course counts for the default where it is the best, or within 2 % of the best, or where the difference, cell by cell,
is within its bootstrap interval of zero (``ties``). Courses 0 to 49 were looked at while defaults were
chosen. Courses 50 to 99 are run once, at the end.

    python benchmarks/single_cell/hundred.py --courses 0 10      # and so on; rows that are there are kept
    python benchmarks/single_cell/hundred.py --merge OTHER.json  # rows of another run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from tqdm.auto import tqdm

import thalweg as tw
from thalweg.core.distances import wasserstein_shares
from thalweg.core.ot.exact import solve_exact

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import peers, results, tables
from benchmarks.single_cell.family import Design, make_course
from benchmarks.single_cell.fates import knn_vote

Floats = NDArray[np.float64]
RESULTS = results.path_of("hundred")
DEFAULT = "usb"
METHODS = ("usb", "otcfm", "uotcfm", "sf2m", "sbcfm", "icfm", "vpcfm", "fm", "am", "eam", "uam")
PEERS = ("torchcfm otcfm", "torchcfm sf2m")
SLOW = ("am", "eam", "uam", *PEERS)
MIDDLE = "ot-midpoint"
SAME_PREDICTION = {"uotcfm": "usb"}  # by the same plans and networks
HALVES = ("looked at", "once")
INNER, LOOKED_AT, CLOSE, SLOW_EVERY = 2, 50, 0.02, 10
_DRAWS = 1000  # of the bootstrap


def held_out(times: Floats, seed: int) -> list[float]:
    """The inner times that are left out."""
    inner = times[1:-1]
    return sorted(np.random.default_rng([20, seed]).permutation(inner)[:INNER].tolist())


def drift_by_cell(v: Floats, adata: AnnData) -> Floats:
    """Cosine with the true drift of the cells before the last time."""
    early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
    v, u = np.asarray(v, dtype=float)[early], np.asarray(adata.obsm["drift"])[early]
    norms = np.linalg.norm(v, axis=1) * np.linalg.norm(u, axis=1)
    out: Floats = (u * v).sum(1) / np.maximum(norms, 1e-12)
    return out


def fate_by_cell(p: Floats, adata: AnnData) -> Floats:
    """Brier score of the cells before the last time."""
    early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
    out: Floats = ((np.asarray(p)[early] - adata.obsm["fate_true"][early]) ** 2).sum(1)
    return out


def own(adata: AnnData, method: str, fates: list[str], seed: int) -> tuple[Floats, Floats | None]:
    """Drift and fates of a method of the package."""
    tw.tl.fit(adata, "time", method=method, rng=seed, device="cpu", check=False)
    tw.tl.velocity(adata)
    if not fates:
        return np.asarray(adata.obsm["velocity_X_pca"]), None
    tw.tl.fate(adata, "type", terminal=fates, rng=seed)
    return np.asarray(adata.obsm["velocity_X_pca"]), adata.obsm["fate_type"][fates].to_numpy()


def peer(adata: AnnData, name: str, fates: list[str], seed: int) -> tuple[Floats, Floats | None]:
    """Drift and fates of a model of torchcfm."""
    x, time = np.asarray(adata.obsm["X_pca"], dtype=np.float64), adata.obs["time"].to_numpy()
    times = np.unique(time)
    model = _torchcfm(name, x, time, times, seed)
    with torch.no_grad():
        at = torch.as_tensor(np.c_[x, time], dtype=torch.float32)
        v = model.flow(at) if model.score is None else model.flow(at) + model.score(at)
    if not fates:
        return v.numpy(), None
    last, labels = time == times[-1], adata.obs["type"].astype(str).to_numpy()
    p, draws = np.zeros((len(x), len(fates))), 1 if model.score is None else 20
    for t in times[:-1]:
        for _ in range(draws):
            ends = model.push(x[time == t], t, times[-1], stochastic=draws > 1)
            both, marks = np.concatenate([x[last], ends]), np.r_[labels[last], labels[time == t]]
            known = np.arange(len(both)) < last.sum()
            p[time == t] += knn_vote(both, known, marks, fates)[~known] / draws
    return v.numpy(), p


def _torchcfm(name: str, x: Floats, time: Floats, times: Floats, seed: int) -> Any:
    from benchmarks.single_cell.torchcfm_fit import PeerSettings, fit_torchcfm

    settings = PeerSettings() if x.shape[1] <= 10 else PeerSettings(width=512, steps=3000)
    return fit_torchcfm(name.split()[1], [x[time == t] for t in times], times.tolist(), seed, settings)


def w1_by_cell(adata: AnnData, name: str, seed: int) -> Floats:
    """Share of each real cell in the exact W1 of the inner times; the mean of all shares is the W1.

    The bootstrap of shares gives the interval of a difference (`thalweg.core.distances.wasserstein_shares`). All times
    have equally many cells.
    """
    times, time = np.unique(adata.obs["time"]), adata.obs["time"].to_numpy()
    shares = []
    for t in held_out(times, seed):
        x, weight = predicted(adata[time != t].copy(), float(t), name, seed)
        shares.append(wasserstein_shares(x, np.asarray(adata.obsm["X_pca"])[time == t], a=weight)[1])
    return np.concatenate(shares)


def predicted(train: AnnData, t: float, name: str, seed: int) -> tuple[Floats, Floats | None]:
    """Cells and weights at a time, from both ends by the methods of the package, from the time before by a peer."""
    if name in METHODS:
        tw.tl.fit(train, "time", method=name, rng=seed, device="cpu", check=False)
        there = tw.tl.interpolate(train, t)
        return np.asarray(there.obsm["X_pca"], dtype=np.float64), there.obs["weight"].to_numpy()
    x, time = np.asarray(train.obsm["X_pca"], dtype=np.float64), train.obs["time"].to_numpy()
    times = np.unique(time)
    before, after = times[times < t][-1], times[times > t][0]
    if name == MIDDLE:
        share = (t - before) / (after - before)
        plan = solve_exact(x[time == before], x[time == after], cost="sqeuclidean")
        return (1 - share) * x[time == before][plan.rows] + share * x[time == after][plan.cols], plan.mass
    return _torchcfm(name, x, time, times, seed).push(x[time == before], before, t), None


def interval(difference: Floats) -> list[float]:
    """Bootstrap interval of the mean, 95 %."""
    rng = np.random.default_rng(0)
    means = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(_DRAWS)]
    return [round(float(q), 6) for q in np.quantile(means, [0.025, 0.975])]


def run(course: int, names: list[str], done: set[tuple[Any, ...]], keep: Callable[[dict[str, Any]], None]) -> None:
    """All methods on one course; the default comes first, as the others are compared with it."""
    names = [name for name in names if name not in SLOW or course % SLOW_EVERY == 0]
    if all((course, name) in done for name in names):
        return
    adata, design = make_course(course), Design.of(course)
    reference: dict[str, Floats] = {}
    for name in sorted(names, key=lambda name: name != DEFAULT):
        if (course, name) in done and name != DEFAULT:
            continue
        row: dict[str, Any] = {"course": course, "kind": design.kind, "method": name}
        start = perf_counter()
        try:
            by_cell = scored_by_cell(adata, name, list(design.fates), course, reference)
        except tw.errors.ThalwegError as error:  # a plan that does not converge; the others go on
            keep(row | {"error": f"{type(error).__name__}: {error}"})
            continue
        reference = by_cell if name == DEFAULT else reference
        for key, values in by_cell.items():
            row |= {key: float(values.mean()), f"{key}_less_default": interval(values - reference[key])}
        if (course, name) not in done:
            keep(row | {"seconds": perf_counter() - start})


def scored_by_cell(
    adata: AnnData, name: str, fates: list[str], seed: int, default: dict[str, Floats]
) -> dict[str, Floats]:
    """Share of each cell in W1, cosine of its drift and Brier score of its fates."""
    same = SAME_PREDICTION.get(name) == DEFAULT and "w1" in default
    out = {"w1": default["w1"] if same else w1_by_cell(adata, name, seed)}
    if name == MIDDLE:
        return out
    v, p = (own if name in METHODS else peer)(adata, name, fates, seed)
    out["drift"] = drift_by_cell(v, adata)
    return out if p is None else out | {"fate": fate_by_cell(p, adata)}


def judged(rows: list[dict[str, Any]], half: str, score: str) -> dict[str, Any]:
    """How often the default is the best, or close to it, and where it is not."""
    frame = pd.DataFrame(
        [r for r in rows if r.get(score) is not None and (r["course"] < LOOKED_AT) == (half == "looked at")]
    )
    if frame.empty:
        return {"half": half, "score": score, "courses": 0}
    sign = -1.0 if score == "drift" else 1.0  # a cosine is better where it is larger
    good, ties, lost = 0, [], []
    for course, group in frame.groupby("course"):
        values = sign * group.set_index("method")[score]
        mine, best = float(values[DEFAULT]), float(values.min())
        if mine - best <= CLOSE * abs(best):
            good += 1
            continue
        between = group.loc[group["method"] == values.idxmin()].iloc[0].get(f"{score}_less_default")
        if isinstance(between, list) and between[0] <= 0 <= between[1]:
            ties.append(int(course))
        else:
            lost.append({"course": int(course), "best": str(values.idxmin()), "by": round(mine - best, 4)})
    n = frame["course"].nunique()
    return {"half": half, "score": score, "courses": n, "share": (good + len(ties)) / n, "ties": ties, "lost": lost}


def by_method(rows: list[dict[str, Any]], half: str) -> list[dict[str, Any]]:
    """W1 over that of the default (geometric mean over courses), cosine and Brier score (means) of each method."""
    frame = pd.DataFrame([r for r in rows if (r["course"] < LOOKED_AT) == (half == "looked at") and "error" not in r])
    if frame.empty:
        return []
    frame = frame.reindex(columns=frame.columns.union(["w1", "drift", "fate"]))  # courses in a circle have no fates
    default = frame[frame["method"] == DEFAULT].set_index("course")
    frame["log"] = np.log(frame["w1"] / frame["course"].map(default["w1"]))
    frame["drift_default"], frame["fate_default"] = (frame["course"].map(default[k]) for k in ("drift", "fate"))
    out = []
    for name, group in frame.groupby("method"):
        out.append(
            {"half": half, "method": name, "courses": len(group), "w1_ratio": float(np.exp(group["log"].mean()))}
        )
        for key in ("drift", "fate"):
            both = group.dropna(subset=[key])
            for column in (key, f"{key}_default"):
                out[-1][column] = float(both[column].mean()) if len(both) else None
    return sorted(out, key=lambda row: row["w1_ratio"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--courses", nargs=2, type=int, default=(0, 100), metavar=("FIRST", "AFTER"))
    parser.add_argument("--methods", nargs="*", default=[*METHODS, MIDDLE, *PEERS])
    parser.add_argument("--merge", type=Path, nargs="*", help="add the rows of other files, and run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if any(name in PEERS for name in args.methods) and not args.merge:
        peers.require("torchcfm")
    tw.settings.progress, tw.settings.verbosity = False, "error"
    rows = results.kept_rows(args.out)
    for other in args.merge or ():
        rows = results.merged(rows, results.load(other)["rows"], "course", "method")

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        save(args.out, rows)

    if args.merge is None:
        for course in tqdm(range(*args.courses), desc="courses"):
            run(course, args.methods, results.keys_of(rows, "course", "method"), keep)
    result = save(args.out, rows)
    shares = pd.DataFrame([{k: v for k, v in s.items() if k not in ("ties", "lost")} for s in result["summary"]])
    for frame in (shares, pd.DataFrame(result["methods"]).round(4)):
        print(tables.terminal(tables.frame_lines(frame, index=False)), end="\n\n")


def save(out: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the rows and what they say of the default; return what was written."""
    rows.sort(key=lambda row: (row["course"], row["method"]))
    result = results.head({"inner times": INNER}, [0], ["torch", "numpy", "POT"], COMMAND)
    result["summary"] = [judged(rows, half, score) for half in HALVES for score in ("w1", "drift", "fate")]
    result["methods"] = [row for half in HALVES for row in by_method(rows, half)]
    result["rows"] = rows
    results.save(out, result)
    return result


COMMAND = "python benchmarks/single_cell/hundred.py"


if __name__ == "__main__":
    try:
        main()
    except peers.PeerError as error:
        raise SystemExit(f"error: {error}") from error
