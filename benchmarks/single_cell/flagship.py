"""The bridge `usb` beside `uotcfm`: held-out W1, and what a fit costs.

Its dynamics are learned beside a prediction of the kind of `uotcfm`, so the held-out scores of both should agree: on
three simulated courses (mean over their inner times), and on CITE in five z-scored components with the spacing of the
papers (index) and with real days. Time: seconds of a whole fit of CITE in five components, plans included, one fit
after another on an idle machine.

    python benchmarks/single_cell/flagship.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch  # noqa: F401, loaded before a fit is timed
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables
from benchmarks.single_cell.cite import REP, course

RESULTS = results.path_of("flagship")


def held_out(name: str, adata: AnnData, methods: list[str], seeds: int, **options: object) -> list[dict[str, object]]:
    """Rows of leave-one-out, the references aside."""
    table = tw.tl.leave_one_out(adata, methods=methods, rng=0, n_seeds=seeds, device="cpu", **options)  # type: ignore[arg-type]
    table = table[table["method"].isin(methods)]
    return [{"course": name} | row for row in table[["method", "time", "seed", "w1", "fit_seconds"]].to_dict("records")]


def seconds(adata: AnnData, methods: list[str], seeds: int) -> list[dict[str, object]]:
    """Wall time of whole fits, in turn."""
    rows: list[dict[str, object]] = []
    tw.tl.fit(adata, "day", use_rep=REP, config=tw.tl.FitConfig(max_steps=1), device="cpu")  # loads what a fit needs
    for seed in range(seeds):
        for method in methods:
            start = perf_counter()
            tw.tl.fit(adata, "day", method=method, use_rep=REP, rng=seed, device="cpu")
            rows.append({"method": method, "seed": seed, "seconds": round(perf_counter() - start, 2)})
    return rows


def scores(cite: AnnData, methods: list[str], seeds: int) -> list[dict[str, object]]:
    """Held-out rows of all courses."""
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        adata = tw.datasets.simulated(rng=seed)
        found = held_out("simulated", adata, methods, 1, time_key="time", use_rep="X_pca")
        rows += [row | {"seed": seed} for row in found]
    for spacing in ("index", "real"):
        name = f"CITE-5, {spacing} spacing"
        rows += held_out(name, cite, methods, seeds, time_key="day", use_rep=REP, spacing=spacing)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["uotcfm", "usb"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-alone", action="store_true", help="measure the time again, and keep the scores")
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    cite = course(5)
    times = seconds(cite, args.methods, args.seeds)
    rows = results.load(RESULTS)["rows"] if args.time_alone else scores(cite, args.methods, args.seeds)
    by_seed = pd.DataFrame(rows).groupby(["course", "method", "seed"])["w1"].mean()
    summary = by_seed.groupby(["course", "method"]).agg(["mean", "std"]).round(4)
    cost = pd.DataFrame(times).groupby("method")["seconds"].agg(["mean", "std"]).round(2)
    print(*(tables.terminal(tables.frame_lines(frame)) for frame in (summary, cost)), sep="\n\n")
    result = results.head(vars(args), range(args.seeds))
    result |= {"summary": summary.reset_index().to_dict("records"), "seconds": cost.reset_index().to_dict("records")}
    result |= {"rows": rows, "second_rows": times}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
