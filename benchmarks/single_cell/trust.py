"""Is the tool's own judgement right? Floors, intervals, verdicts, choices and proposals against known truth.

- ``floors``: what fresh samples of a time score, over ``floor`` and ``floor-corrected``; 50 courses of `family.py`.
- ``coverage``: how often the interval of a share holds the mean share over other samples of the same day.
- ``fates``: how often the intervals of fates hold the true ones, on courses of `family.py` that took no part in
  ``UNKNOWN`` of `thalweg.data.fates` (courses 0 to 24 did), and the shares of the types in the clones of the LARRY
  subset, each scored by a fit that has not seen the clone.
- ``verdicts``: `tw.tl.assess` on courses whose times were exchanged at random, five times each, and on the true ones.
- ``choices``: W1 of the method that `tw.tl.choose` takes, over that of the best single method; ten courses.
- ``proposals``: whether the time that `tw.tl.next_time` proposes lowers the error more than the middle of the longest
  interval; ten courses.
- ``time``: seconds of `tw.tl.assess` on 30,000 cells, and of the checks that `tw.tl.fit` makes.

    python benchmarks/single_cell/trust.py --parts floors coverage
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from tqdm.auto import tqdm

import thalweg as tw
from thalweg.core.distances import wasserstein, wasserstein_shares
from thalweg.core.fresh import fresh_distance
from thalweg.data.cells import read_course
from thalweg.data.fates import beta_law, fate_interval
from thalweg.data.recipe import Recipe
from thalweg.flows.methods import find_method
from thalweg.flows.moves import moves
from thalweg.flows.share import Scale

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables
from benchmarks.single_cell import cite, larry, mef
from benchmarks.single_cell.family import Design, draw_snapshot, make_course

Floats = NDArray[np.float64]
RESULTS = results.path_of("trust")
COURSES, FRESH, DAYS, PERMUTED, TEN = 50, 5, 40, 5, 10
DRAWS, FUTURES = 8, 64
LEVELS = {50: 0.674490, 80: 1.281552, 95: 1.959964}


def floors() -> list[dict[str, Any]]:
    """Mean score of fresh samples of an inner time, over both floors."""
    rows = []
    for seed in tqdm(range(COURSES), desc="floors"):
        design, rng = Design.of(seed), np.random.default_rng([23, seed])
        n, time = min(400, design.n_cells // len(design.times)), design.times[len(design.times) // 2]
        day, *others = (draw_snapshot(design, n, time, rng) for _ in range(1 + FRESH))
        truth = float(np.mean([wasserstein(other, day) for other in others]))
        cut = rng.permutation(n)
        half = wasserstein(day[cut[: n // 2]], day[cut[n // 2 :]])
        row = {"course": seed, "cells": n, "dims": design.n_dims}
        rows.append(row | {"floor": half / truth, "corrected": fresh_distance(day, rng=rng).value / truth})
    return rows


def coverage() -> list[dict[str, Any]]:
    """Share of the days on which an interval holds the mean share of all days, for a copy moved half of the way."""
    rows = []
    for seed in tqdm(range(TEN), desc="coverage"):
        design, rng = Design.of(seed), np.random.default_rng([24, seed])
        n, (before, time) = min(200, design.n_cells // len(design.times)), design.times[-3:-1]
        copy, ahead = (draw_snapshot(design, n, t, rng) for t in (before, time))
        half = np.concatenate([copy[: n // 2], ahead[n // 2 :]])
        found = []
        for _ in range(DAYS):
            day = draw_snapshot(design, n, time, rng)
            scale = Scale(*wasserstein_shares(copy, day), *fresh_distance(day, rng=rng), np.full(n, 1 / n))
            found.append((scale, wasserstein_shares(half, day)))
        shares = np.array([scale.share(*one).value for scale, one in found])
        if not np.isfinite(shares).all():
            continue
        row: dict[str, Any] = {"course": seed, "cells": n, "dims": design.n_dims, "share": shares.mean()}
        for level, z in LEVELS.items():
            limits = [scale.share(*one, level=z) for scale, one in found]
            row[f"covered_{level}"] = float(np.mean([s.low <= shares.mean() <= s.high for s in limits]))
        rows.append(row)
    return rows


def fates() -> list[dict[str, Any]]:
    """Share of the true fates within their intervals."""
    simulated, undecided = [], []
    for seed in tqdm([s for s in range(50, 100) if Design.of(s).fates and Design.of(s).n_cells <= 2500], desc="fates"):
        adata, names = make_course(seed), list(Design.of(seed).fates)
        tw.tl.fit(adata, "time", rng=0, device="cpu", check=False)
        tw.tl.fate(adata, "type", terminal=names, n_draws=DRAWS, rng=0)
        early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
        truth = adata.obsm["fate_true"][early, 0]
        p, error = (adata.obsm[key][names[0]].to_numpy()[early] for key in ("fate_type", "fate_type_se"))
        error = np.sqrt(error**2 + p * (1 - p) / FUTURES)  # the truth is a share of so many futures
        held = {}
        for level in LEVELS:
            low, high = fate_interval(p, error, level / 100)
            held[level] = (truth >= low - 0.5 / FUTURES) & (truth <= high + 0.5 / FUTURES)
        some = (truth > 0.03) & (truth < 0.97)
        simulated.append(_covered(held))
        if some.sum() >= 20:
            undecided.append(_covered({level: of[some] for level, of in held.items()}))
    clones = _clones()
    tables = {"simulated, all": simulated, "simulated, undecided": undecided}
    rows = [
        {"cells": name} | pd.DataFrame(found).mean().to_dict() | {"courses": len(found)}
        for name, found in tables.items()
    ]
    return [*rows, *clones]


def _covered(held: dict[int, NDArray[np.bool_]]) -> dict[str, float]:
    return {f"covered_{level}": float(of.mean()) for level, of in held.items()}


def _clones() -> list[dict[str, Any]]:
    """How often the share of a type in a clone lies within the range of draws of as many cells."""
    adata, clone = larry.course(10), larry.clones()
    rows, counts = larry.clonal_counts(adata, clone)
    early = (adata.obs["time_info"] != "6").to_numpy()
    p, error = (np.full((adata.n_obs, len(larry.TERMINAL)), np.nan) for _ in range(2))
    for part in tqdm(np.array_split(np.random.default_rng(0).permutation(np.unique(clone)), 5), desc="clones"):
        out = np.isin(clone, part)
        train, course = adata[~out].copy(), adata[~out | (out & early)].copy()
        tw.tl.fit(train, "time_info", rng=0, device="cpu", check=False)
        course.uns["thalweg"] = train.uns["thalweg"]
        tw.tl.fate(course, "state_info", terminal=larry.TERMINAL, n_draws=DRAWS, rng=0)
        scored = np.flatnonzero(out & early)
        own = course.obs_names.get_indexer(adata.obs_names[scored])
        for of, key in ((p, "fate_state_info"), (error, "fate_state_info_se")):
            of[scored] = course.obsm[key][larry.TERMINAL].to_numpy()[own]
    rng, n = np.random.default_rng(1), counts.sum(1, keepdims=True)
    drawn = rng.binomial(n.astype(int), rng.beta(*beta_law(p[rows], error[rows]), (1000, *counts.shape))) / n
    held = {}
    for level in LEVELS:
        low, high = np.quantile(drawn, [0.5 - level / 200, 0.5 + level / 200], axis=0)
        held[level] = (counts / n >= low - 1e-9) & (counts / n <= high + 1e-9)
    some = (p[rows] > 0.03) & (p[rows] < 0.97)
    return [
        {"cells": name} | _covered({level: of[keep] for level, of in held.items()}) | {"courses": 1}
        for name, keep in (("LARRY clones, all", np.ones_like(some)), ("LARRY clones, undecided", some))
    ]


def _courses() -> dict[str, Callable[[], tuple[AnnData, str, str]]]:
    def reprogramming() -> tuple[AnnData, str, str]:
        split = mef.split(30)
        obs = pd.concat([part.obs[["day"]] for part in split])
        return AnnData(obs=obs, obsm={"X_pca": np.concatenate([p.obsm["X_pca"] for p in split])}), "day", "X_pca"

    def larry_subset() -> tuple[AnnData, str, str]:
        adata = tw.datasets.larry()
        adata.obsm["X_ten"] = np.asarray(adata.obsm["X_pca"])[:, :10]
        return adata, "time_info", "X_ten"

    return {
        "simulated": lambda: (tw.datasets.simulated(rng=0, n_futures=0), "time", "X_pca"),
        "CITE, 5 PCs": lambda: (cite.course(5), "day", cite.REP),
        "MEF, 30 PCs": reprogramming,
        "LARRY subset, 10 PCs": larry_subset,
    }


def verdicts() -> list[dict[str, Any]]:
    """Verdicts on true courses and on those whose times were exchanged."""
    rows = []
    for name, make in _courses().items():
        adata, time_key, rep = make()
        labels = adata.obs[time_key].to_numpy()
        for seed in range(-1, PERMUTED):
            one = AnnData(obs=adata.obs[[time_key]].copy(), obsm={rep: np.asarray(adata.obsm[rep])})
            if seed >= 0:
                one.obs[time_key] = np.random.default_rng(seed).permutation(labels)
            start = perf_counter()
            tw.tl.assess(one, time_key, use_rep=rep, n_cells=500, rng=max(seed, 0), device="cpu")
            found = one.uns["assessment"]
            evidence = tw.get.assessment_df(one).set_index("check")
            rows.append(
                {"course": name, "times": "exchanged" if seed >= 0 else "true", "seed": max(seed, 0)}
                | {"verdict": found["verdict"], "share": found["share"], "p": float(evidence.loc["movement", "value"])}
                | {"doubts": ", ".join(evidence.index[evidence["level"].isin(["doubt", "bad"])])}
                | {"seconds": perf_counter() - start}
            )
            print(rows[-1], flush=True)
    return rows


def _long(wanted: int) -> list[int]:
    """Courses of the family with six times or more and at most 150 cells at each, so that many fits are quick."""
    fits = [s for s in range(400, 700) if len(Design.of(s).times) >= 6]
    return [s for s in fits if Design.of(s).n_cells / len(Design.of(s).times) <= 150][:wanted]


def choices() -> list[dict[str, Any]]:
    """W1 of the choice, which each held-out time makes without itself, and of each method."""
    rows = []
    for seed in tqdm(_long(TEN), desc="choices"):
        adata = make_course(seed)
        left_out = np.unique(adata.obs["time"])[1:-1][::2].tolist()
        scores = tw.tl.leave_one_out(
            adata,
            "time",
            methods=("auto", "usb", "otcfm", "fm"),
            times=left_out,
            n_seeds=1,
            use_rep="X_pca",
            device="cpu",
        )
        w1 = scores.groupby("method")["w1_both_ends"].mean()
        rows.append({"course": seed} | {m: float(w1[m]) for m in ("auto", "usb", "otcfm", "fm")})
    return rows


def proposals() -> list[dict[str, Any]]:
    """Mean error between the times with a time added: the proposed one, the middle of the longest interval, the best.

    Courses of `tw.datasets.simulated` with one to three inner times at random; a time that is added comes to the same
    cells of the others. The best is that of all times that `tw.tl.next_time` looks at, by the true error.
    """
    rows = []
    for seed in tqdm(range(TEN), desc="proposals"):
        rng = np.random.default_rng([28, seed])
        times = [0.0, *np.sort(rng.uniform(0.3, 4.7, int(rng.integers(1, 4)))).round(2).tolist(), 5.0]
        grid = (np.linspace(0, 5, 12)[1:-1] + 0.0013).round(4).tolist()
        tried = [lo + s * (hi - lo) for lo, hi in pairwise(times) for s in (0.25, 0.5, 0.75)]
        every = sorted({*times, *grid, *tried})
        adata = tw.datasets.simulated(200 * len(every), times=tuple(every), n_futures=0, rng=seed)
        at = {t: adata[adata.obs["time"] == t] for t in every}
        table = tw.tl.next_time(_joined(at, times), "time", n_models=1, device="cpu")
        errors = {t: _mean_error(_joined(at, [*times, t]), at, grid) for t in tried}
        middle = float(np.mean(times[int(np.diff(times).argmax()) :][:2]))
        proposed = min(tried, key=lambda t: abs(t - table.attrs["time"]))
        row: dict[str, Any] = {"course": seed, "times": times, "proposed": proposed, "middle": middle}
        row |= {"error_now": _mean_error(_joined(at, times), at, grid), "error_proposed": errors[proposed]}
        rows.append(row | {"error_middle": errors[min(tried, key=lambda t: abs(t - middle))]})
        rows[-1]["error_best"] = min(errors.values())
    return rows


def _joined(at: dict[float, AnnData], times: list[float]) -> AnnData:
    """The cells of some times, coordinates alone."""
    parts = [at[t] for t in sorted(times)]
    obs = pd.concat([part.obs[["time"]] for part in parts])
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate([part.obsm["X_pca"] for part in parts])})


def _mean_error(adata: AnnData, at: dict[float, AnnData], grid: list[float]) -> float:
    """Mean W1 of the predictions of a fit to the real cells of some times."""
    alone = replace(find_method("usb"), dynamics="none", name="usb, prediction alone")
    tw.tl.fit(adata, "time", method=alone, rng=0, device="cpu", check=False)
    found = []
    for t in grid:
        there = tw.tl.interpolate(adata, t)
        found.append(wasserstein(there.obsm["X_pca"], at[t].obsm["X_pca"], a=there.obs["weight"].to_numpy()))
    return float(np.mean(found))


def time() -> list[dict[str, Any]]:
    """Seconds of an assessment of 30,000 cells, and of what a fit checks before it starts."""
    adata = tw.datasets.simulated(30_000, n_futures=0, rng=0)
    cells = read_course(adata, Recipe("time"))
    start = perf_counter()
    moves(cells, np.random.default_rng(0))
    checked = perf_counter() - start
    start = perf_counter()
    tw.tl.assess(adata, "time", device="cpu")
    return [{"cells": adata.n_obs, "assess_seconds": perf_counter() - start, "check_seconds": checked}]


PARTS = {f.__name__: f for f in (floors, coverage, fates, verdicts, choices, proposals, time)}


def summary(part: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a part says."""
    frame = pd.DataFrame(rows)
    if part == "floors":
        few = frame["dims"] <= 5
        return {
            f"{name}_{where}": float(frame.loc[keep, name].mean())
            for name in ("floor", "corrected")
            for where, keep in (("few_dims", few), ("many_dims", ~few))
        }
    if part == "coverage":
        return {f"covered_{level}": float(frame[f"covered_{level}"].mean()) for level in LEVELS}
    if part == "fates":
        return {f"{row['cells']}, {level} %": row[f"covered_{level}"] for row in rows for level in LEVELS}
    if part == "verdicts":
        counts = frame.groupby(["times", "verdict"]).size()
        return {f"{times}_{verdict}": int(n) for (times, verdict), n in counts.items()}
    if part == "choices":
        best = frame[["usb", "otcfm", "fm"]].mean().idxmin()
        return {"best": str(best), "loss_percent": 100 * float((frame["auto"] / frame[best]).mean() - 1)}
    if part == "proposals":
        gain, best = (frame["error_middle"] - frame[name] for name in ("error_proposed", "error_best"))
        counts = {"better": gain > 0, "same": gain == 0, "worse": gain < 0, "best_better": best > 0}
        return {name: int(of.sum()) for name, of in counts.items()} | {"mean_gain": float(gain.mean())}
    return dict(rows[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=[*PARTS], choices=[*PARTS])
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    found = results.load(RESULTS) if RESULTS.exists() else {"parts": {}}
    parts = found["parts"]
    for part in args.parts:
        rows = PARTS[part]()
        parts[part] = {"summary": summary(part, rows), "rows": rows}
        result = results.head({"parts": [*parts]}, [0], ["torch", "numpy", "POT"], COMMAND) | {"parts": parts}
        results.save(RESULTS, result)
        print(tables.terminal(tables.frame_lines(pd.DataFrame([parts[part]["summary"]]).round(4), index=False)))


COMMAND = "python benchmarks/single_cell/trust.py"


if __name__ == "__main__":
    main()
