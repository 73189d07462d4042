"""Seconds of each verb beside those of another version of the package, in turn, in one run.

    git worktree add ../before v0.1.0
    python benchmarks/scaling/verbs.py --before ../before/src

Two processes wait for orders, one with each version; each verb runs in one, then in the other, and again, so that a
machine whose speed drifts hurts both alike. Where a process lies in memory moves its speed by some per cent, so new
ones are started for every round. The ratio of each pair is taken; the median over all rounds is the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

RESULTS = results.path_of("verbs")
SHORTEST = 0.2  # seconds; a faster call is repeated until they are over
N_CELLS = 1500  # at each of the times of the simulated course


def orders() -> dict[str, Callable[[], Any]]:
    """The calls by name, on a course with fits."""
    import thalweg as tw

    tw.settings.progress, tw.settings.verbosity = False, "error"
    adata = tw.datasets.simulated(n_cells=N_CELLS, rng=0)
    noisy, config = adata.copy(), tw.tl.FitConfig(max_steps=200)
    tw.tl.fit(adata, "time", method="otcfm", rng=0)
    tw.tl.fit(noisy, "time", method="sf2m", rng=0, config=config)
    tw.tl.transition(adata)
    tw.tl.fate(adata, "branch")
    return {
        "fit otcfm": lambda: tw.tl.fit(adata, "time", method="otcfm", rng=0, config=config, key_added="again"),
        "fit uotcfm": lambda: tw.tl.fit(adata, "time", method="uotcfm", rng=0, config=config, key_added="again"),
        "fit sf2m": lambda: tw.tl.fit(adata, "time", method="sf2m", rng=0, config=config, key_added="again"),
        "interpolate": lambda: tw.tl.interpolate(adata, 2.7, both_ends=False),
        "interpolate, both ends": lambda: tw.tl.interpolate(adata, 2.7, both_ends=True),
        "velocity": lambda: tw.tl.velocity(adata),
        "trajectories": lambda: tw.tl.trajectories(adata, 300, n_times=21, rng=0),
        "fate": lambda: tw.tl.fate(adata, "branch"),
        "fate by the SDE": lambda: tw.tl.fate(noisy, "branch", n_samples=3, rng=0),
        "transition": lambda: tw.tl.transition(adata),
        "transition by plans": lambda: tw.tl.transition(adata, kind="plan", key_added="plan"),
        "ancestors": lambda: tw.tl.ancestors(adata, {"branch": "A"}, source_time=5.0),
        "log_likelihood": lambda: tw.tl.log_likelihood(adata, trace="hutchinson"),
        "leave_one_out": lambda: tw.tl.leave_one_out(
            adata, "time", methods="otcfm", n_seeds=1, config=config, times=[2.0]
        ),
        "pp.growth": lambda: tw.pp.growth(adata, method="unbalanced", time_key="time"),
    }


def obey() -> None:
    """Run what is read from standard input, and answer with the seconds it took."""
    calls = orders()
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        call, count, start = calls[line.strip()], 0, time.perf_counter()
        while not count or time.perf_counter() - start < SHORTEST:
            call()
            count += 1
        print((time.perf_counter() - start) / count, flush=True)


class Worker:
    """A process with one version of the package."""

    def __init__(self, source: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(source)}
        command = [sys.executable, str(Path(__file__).resolve()), "--obey"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.names: list[str] = json.loads(self._answer())

    def seconds(self, name: str) -> float:
        """Seconds that a call takes there."""
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker stopped; its message is above")
        return line


def _pair(now: Worker, before: Worker, name: str, *, first: bool) -> tuple[float, float]:
    """Seconds of both, in alternating order."""
    if first:
        return now.seconds(name), before.seconds(name)
    other = before.seconds(name)
    return now.seconds(name), other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="folder src of the other version")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of runs of each verb in a round (4)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with processes of its own (5)")
    parser.add_argument("--only", nargs="*", default=None, help="names of verbs")
    parser.add_argument("--obey", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.obey:
        return obey()
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(args.rounds):
        sources = [results.ROOT / "src", args.before]
        workers = [Worker(source) for source in (sources if number % 2 else sources[::-1])]
        now, before = workers if number % 2 else workers[::-1]
        for name in args.only or now.names:
            pairs = [_pair(now, before, name, first=k % 2 == 0) for k in range(args.pairs + 1)][1:]
            found.setdefault(name, []).extend(pairs)
        for worker in workers:
            worker.process.kill()
    rows = []
    for name, pairs in found.items():
        ratios = sorted(a / b for a, b in pairs)
        seconds = {"seconds": median(a for a, _ in pairs), "seconds_before": median(b for _, b in pairs)}
        rows.append({"verb": name, **seconds, "ratio": median(ratios), "lowest": ratios[0], "highest": ratios[-1]})
    columns = [tables.Column("verb", "verb"), tables.Column("seconds", "seconds", ".3f")]
    columns += [tables.Column(key, key, ".2f") for key in ("ratio", "lowest", "highest")]
    print(tables.terminal(tables.lines_of(rows, columns)))
    settings = {"rounds": args.rounds, "pairs": args.pairs, "cells": N_CELLS}
    print(f"written: {results.save(RESULTS, results.head(settings) | {'rows': rows})}")
    return None


if __name__ == "__main__":
    main()
