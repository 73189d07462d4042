"""Seconds and peak memory of each function on many cells, each in a process of its own.

The cells are a simulated course of 100,000 in 50 principal components (200 genes). Every function runs in a fresh
process that reads the AnnData, fitted where it needs a fit, from a file, so that its peak is its own. ``loaded`` is the
resident memory with the AnnData read, ``peak`` the highest that was reached, ``added`` their difference; seconds are
those of the call.

    python benchmarks/scaling/functions.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import torch  # noqa: F401, loaded before memory and seconds count
from anndata import AnnData

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results
from benchmarks.common.processes import ask, say
from benchmarks.reliability import memory

RESULTS = results.path_of("functions")
MIB = 2**20
Call = Callable[[AnnData], object]


@dataclass(frozen=True)
class Case:
    """A call as shown, the file it reads, the call, and the file its result is kept in for those after it."""

    shown: str
    reads: str
    call: Call
    writes: str = ""


FUNCTIONS = {
    "fit otcfm": Case("tl.fit(method='otcfm')", "cells", lambda a: tw.tl.fit(a, "time", rng=0), "otcfm"),
    "fit uotcfm": Case("tl.fit(method='uotcfm')", "cells", lambda a: tw.tl.fit(a, "time", method="uotcfm", rng=0)),
    "fit sf2m": Case("tl.fit(method='sf2m')", "cells", lambda a: tw.tl.fit(a, "time", method="sf2m", rng=0), "sf2m"),
    "transition": Case("tl.transition()", "otcfm", lambda a: tw.tl.transition(a), "coupled"),
    "fate": Case("tl.fate('branch')", "coupled", lambda a: tw.tl.fate(a, "branch"), "fates"),
    "transition sde": Case("tl.transition() of sf2m", "sf2m", lambda a: tw.tl.transition(a, rng=0)),
    "fate sde": Case("tl.fate('branch') of sf2m", "sf2m", lambda a: tw.tl.fate(a, "branch", rng=0)),
    "descendants": Case(
        "tl.descendants(...)", "coupled", lambda a: tw.tl.descendants(a, {"branch": "progenitor"}, source_time=2.0)
    ),
    "ancestors": Case("tl.ancestors(...)", "coupled", lambda a: tw.tl.ancestors(a, {"branch": "A"}, source_time=5.0)),
    "transition_df": Case("get.transition_df('branch')", "coupled", lambda a: tw.get.transition_df(a, "branch")),
    "interpolate": Case("tl.interpolate(2.7)", "otcfm", lambda a: tw.tl.interpolate(a, 2.7)),
    "interpolate sde": Case(
        "tl.interpolate(2.7, stochastic=True)", "sf2m", lambda a: tw.tl.interpolate(a, 2.7, stochastic=True, rng=0)
    ),
    "trajectories": Case("tl.trajectories(), 20,000 cells", "otcfm", lambda a: tw.tl.trajectories(a)),
    "velocity": Case("tl.velocity()", "otcfm", lambda a: tw.tl.velocity(a)),
    "velocity basis": Case("tl.velocity(basis='map')", "otcfm", lambda a: tw.tl.velocity(a, basis="map")),
    "velocity genes": Case("tl.velocity(genes=True)", "otcfm", lambda a: tw.tl.velocity(a, genes=True)),
    "decode": Case("tl.decode(tl.interpolate(2.7))", "otcfm", lambda a: tw.tl.decode(tw.tl.interpolate(a, 2.7), a)),
    "drivers": Case("tl.drivers('branch')", "fates", lambda a: tw.tl.drivers(a, "branch", time_key="time")),
    "gene_trends": Case(
        "tl.gene_trends(20 genes)",
        "fates",
        lambda a: tw.tl.gene_trends(a, list(a.var_names[:20]), "time", fate="branch"),
    ),
    "growth": Case(
        "pp.growth(method='unbalanced')", "cells", lambda a: tw.pp.growth(a, method="unbalanced", time_key="time")
    ),
    "log_likelihood": Case(
        "tl.log_likelihood(trace='hutchinson')", "otcfm", lambda a: tw.tl.log_likelihood(a, trace="hutchinson")
    ),
    "leave_one_out": Case(
        "tl.leave_one_out(one method, one time)",
        "cells",
        lambda a: tw.tl.leave_one_out(a, "time", methods="otcfm", times=[2.0], n_seeds=1),
    ),
}


def measure(case: Case, folder: Path) -> None:
    """Run one function on the AnnData of a file and say its figures."""
    tw.settings.progress, tw.settings.verbosity = False, "error"
    adata = ad.read_h5ad(folder / f"{case.reads}.h5ad")
    loaded, start = memory.current() / MIB, time.perf_counter()
    case.call(adata)
    seconds = time.perf_counter() - start
    peak = memory.peak() / MIB
    figures = {"seconds": seconds, "loaded_mib": loaded, "peak_mib": peak, "added_mib": peak - loaded}
    if case.writes:
        adata.write_h5ad(folder / f"{case.writes}.h5ad")
    say({k: round(v, 2) for k, v in figures.items()})


def prepare(folder: Path, n_cells: int) -> None:
    """Write the cells."""
    adata = tw.datasets.simulated(n_cells, n_pcs=50, n_futures=0, rng=0)
    adata.obsm["X_map"] = adata.obsm["X_pca"][:, :2].copy()
    adata.write_h5ad(folder / "cells.h5ad")


def write(rows: list[results.Row], n_cells: int, out: Path) -> None:
    """Write what has been measured."""
    settings = {"cells": n_cells, "dims": 50}
    head = results.head(settings, [0], ["torch", "numpy", "anndata"], "python benchmarks/scaling/functions.py")
    results.save(out, head | settings | {"rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", choices=FUNCTIONS, help="run only these again, and keep the other rows")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(FUNCTIONS[args.one], args.folder)
        return
    rows = results.kept_rows(args.out) if args.only else []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), args.cells)
        for name, case in FUNCTIONS.items():
            if args.only and name not in args.only:
                continue
            found = ask([sys.executable, "-W", "ignore", Path(__file__).resolve(), "--one", name, "--folder", folder])
            row = {"function": name, "call": case.shown} | found
            print(row, flush=True)
            rows = results.merged(rows, [row], "function")
            write(rows, args.cells, args.out)


if __name__ == "__main__":
    main()
