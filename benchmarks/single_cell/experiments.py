"""How right the comparison of arms is, on simulated experiments with three replicates of each arm.

- ``null``: sets without an effect. How often a fate, a share of a group, or an onset is found at the level .05.
- ``effect``: a knock-out that moves the share of a fate from .30 to .15 from a day on, with 1,000 cells of each day,
  arm and replicate, and replicates whose shares scatter by .03. How often the fate is found, before and after
  adjustment over the fates; how far the estimate is from the drawn truth, and how often the interval holds the shift
  that was put in; and how often the onset is found within one time point.
- ``floors``: what leaving a day out is measured by, where replicates differ by a batch.

Every replicate of every set is fitted again by itself. The fit of all cells gives the method, the time axis and the
units only, so it is made from a part of the cells, with a network that is hardly trained: fates of ``"usb"`` are made
along its plans, in which no network takes part. The flows of both arms, whose divergence `tl.compare` also reports,
are not judged here.

    python benchmarks/single_cell/experiments.py --parts null effect floors
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

import thalweg as tw

COMMAND = "python benchmarks/single_cell/experiments.py"
NULL, EFFECT = 200, 50
FEW, MANY, PART = 200, 1000, 60  # cells of a day, arm and replicate: of null sets, of others, and of the fit of all
LEVEL = 0.05
Row = dict[str, Any]


def compared(seed: int, n_cells: int, **options: Any) -> tuple[Any, pd.DataFrame, pd.DataFrame, float, float]:
    """An experiment, its tables of fates and shares, its onset and the seconds of the comparison."""
    logging.getLogger("thalweg").setLevel(logging.ERROR)
    tw.settings.progress = False
    adata = tw.datasets.experiment(rng=seed, n_cells=n_cells, counts=False, **options)
    some = adata[np.random.default_rng(seed).permutation(adata.n_obs)[: PART * 33]].copy()
    tw.tl.fit(
        some, "time", condition_key="condition", baseline="baseline", use_rep="X_latent", rng=seed, check=False,
        config=tw.tl.FitConfig(max_steps=1),
    )  # fmt: skip
    adata.uns["thalweg"] = {name: value for name, value in some.uns["thalweg"].items() if name != "seen"}
    start = time.perf_counter()
    tw.tl.compare(adata, "condition", "cell_type", replicate_key="replicate", rng=seed)
    seconds = time.perf_counter() - start
    shares = tw.get.compare_df(adata, "composition")
    return adata, tw.get.compare_df(adata), shares, float(adata.uns["compare"]["onset"]["time"].iloc[0]), seconds


def null(seed: int) -> Row:
    """A set without an effect."""
    _, fates, shares, onset, seconds = compared(seed, FEW, shifted=0.30, response=False)
    return {
        "seed": seed,
        "fates": len(fates),
        "rejected": int((fates["p"] <= LEVEL).sum()),
        "adjusted": bool((fates["q"] <= LEVEL).any()),
        "shares": int(shares["p"].notna().sum()),
        "shares_rejected": int((shares["p"] <= LEVEL).sum()),
        "shares_adjusted": bool((shares["q"] <= LEVEL).any()),
        "onset": bool(np.isfinite(onset)),
        "seconds": seconds,
    }


def effect(seed: int) -> Row:
    """A set with a knock-out; the onset is day 1, 2 or 3."""
    day = 1 + seed % 3
    adata, fates, _, onset, seconds = compared(seed, MANY, onset=day, response=False)
    truth = adata.uns["truth"]
    drawn = truth["shares"].groupby("condition", observed=True)[truth["fate"]].mean()
    row = fates.set_index("group").loc[truth["fate"]]
    return {
        "seed": seed,
        "p": float(row["p"]),
        "q": float(row["q"]),
        "difference": float(row["difference"]),
        "drawn": float(drawn["knock-out"] - drawn["control"]),
        "covered": bool(row["low"] <= truth["shifted"] - truth["share"] <= row["high"]),
        "onset": day,
        "onset_found": onset,
        "seconds": seconds,
    }


def floors(seed: int) -> list[Row]:
    """The rows that a prediction is measured by, on an experiment with batches."""
    adata = tw.datasets.experiment(rng=seed, n_cells=300, counts=False)
    scores = tw.tl.leave_one_out(
        adata, "time", methods=["otcfm"], n_seeds=1, rng=seed, use_rep="X_latent", condition_key="condition",
        baseline="baseline", replicate_key="replicate", config=tw.tl.FitConfig(max_steps=500),
    )  # fmt: skip
    kept = ["copy-previous", "floor", "floor-corrected", "floor-replicates", "otcfm"]
    return scores[scores["method"].isin(kept)][["method", "time", "w1"]].to_dict("records")


def summary(found: dict[str, list[Row]]) -> Row:
    """The figures of the tables."""
    out: Row = {}
    if "null" in found:
        rows = pd.DataFrame(found["null"])
        out["null"] = {
            "sets": len(rows),
            "false_fates": float(rows["rejected"].sum() / rows["fates"].sum()),
            "false_fate_sets": float(rows["adjusted"].mean()),
            "false_shares": float(rows["shares_rejected"].sum() / rows["shares"].sum()),
            "false_share_sets": float(rows["shares_adjusted"].mean()),
            "false_onsets": float(rows["onset"].mean()),
            "seconds": float(rows["seconds"].median()),
        }
    if "effect" in found:
        rows = pd.DataFrame(found["effect"])
        off = (rows["onset_found"] - rows["onset"]).abs()
        out["effect"] = {
            "sets": len(rows),
            "power": float((rows["p"] <= LEVEL).mean()),
            "power_adjusted": float((rows["q"] <= LEVEL).mean()),
            "error": float((rows["difference"] - rows["drawn"]).abs().mean()),
            "bias": float((rows["difference"] - rows["drawn"]).mean()),
            "covered": float(rows["covered"].mean()),
            "onset_within_one": float((off <= 1).mean()),
            "onset_exact": float((off == 0).mean()),
            "onset_early": float((rows["onset_found"] < rows["onset"]).mean()),
            "seconds": float(rows["seconds"].median()),
        }
    if "floors" in found:
        rows = pd.DataFrame(found["floors"])
        out["floors"] = rows.groupby("method", sort=False)["w1"].mean().to_dict()
    return out


def gathered(make: Callable[[int], Row], seeds: list[int], workers: int, path: Path) -> list[Row]:
    """A row for each seed; those that ``path`` holds already are not made again."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    left = [seed for seed in seeds if seed not in {row["seed"] for row in rows}]
    with ProcessPoolExecutor(workers) as pool, path.open("a") as out:
        for row in pool.map(make, left):
            out.write(json.dumps(row) + "\n")
            out.flush()
            rows.append(row)
    return sorted((row for row in rows if row["seed"] in set(seeds)), key=lambda row: row["seed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=["null", "effect", "floors"], default=["null", "effect", "floors"]
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--partial", type=Path, default=Path("."), help="folder that holds rows of a run cut off")
    parser.add_argument("--sets", type=int, nargs=2, default=[NULL, EFFECT], help="null sets and sets with an effect")
    chosen = parser.parse_args()
    path = results.path_of("experiments")
    found = json.loads(path.read_text())["rows"] if path.exists() else {}
    for name, make, n in (("null", null, chosen.sets[0]), ("effect", effect, chosen.sets[1])):
        if name in chosen.parts:
            found[name] = gathered(make, list(range(n)), chosen.workers, chosen.partial / f"experiments_{name}.jsonl")
    if "floors" in chosen.parts:
        found["floors"] = floors(0)
    figures = summary(found)
    head = results.head({"cells": [FEW, MANY]}, [0], ["thalweg", "torch", "pot"], COMMAND)
    results.save(path, head | {"summary": figures, "rows": found})
    print(tables.terminal(tables.frame_lines(pd.DataFrame(figures).round(3), index=True)))


if __name__ == "__main__":
    main()
