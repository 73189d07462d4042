"""Exact W1 and whole-data plans on CITE, beside POT's network simplex: one run, one machine, one JSON.

python benchmarks/scaling/exact_ot.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ot

import thalweg as tw
from thalweg.core.ot.exact import solve_exact

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import peers, results

RESULTS = results.path_of("exact_ot")
STEPS = 10_000_000  # of POT's network simplex, which warns where its default of 100,000 stops it too early


def timed(solve: Callable[[], float]) -> tuple[float, float]:
    """Value and seconds."""
    start = time.perf_counter()
    value = solve()
    return value, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="*", default=[5, 50])
    args = parser.parse_args()
    tw.settings.verbosity = "warning"
    rows = []
    for dims in args.dims:
        adata = tw.datasets.cite()
        tw.pp.standardize(adata, n_dims=dims, key_added="z")
        day = adata.obs["day"].to_numpy()
        x, y = (np.asarray(adata.obsm["z"][day == t], dtype=np.float64) for t in (2, 3))
        a, b = ot.unif(len(x)), ot.unif(len(y))
        for cost, metric in (("euclidean", "euclidean"), ("sqeuclidean", "sqeuclidean")):
            ours, seconds = timed(lambda c=cost, x=x, y=y: solve_exact(x, y, cost=c).cost)
            theirs, peer = timed(
                lambda m=metric, x=x, y=y, a=a, b=b: ot.emd2(a, b, ot.dist(x, y, metric=m), numItermax=STEPS)
            )
            row = {"dims": dims, "cost": cost, "cells": [len(x), len(y)], "seconds": seconds, "pot_seconds": peer}
            row |= {"times_faster": peer / seconds, "relative_difference": abs(ours - float(theirs)) / float(theirs)}
            print(row, flush=True)
            rows.append(row)
    result = results.head(vars(args))
    result |= {"peers": {"pot": peers.record("pot", {"solver": "emd2", "numItermax": STEPS})}, "rows": rows}
    print(f"written: {results.save(RESULTS, result)}")


if __name__ == "__main__":
    main()
