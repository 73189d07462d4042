"""Figure and figures of the page on reading W1: ``python docs/scripts/reading_w1.py``.

Two samples of one standard Gaussian stand for a perfect forecast, and a third is shrunk towards its mean before it is
scored, so that everything W1 says here is about samples and dimension, and nothing about a method.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results

PICTURE = results.ROOT / "docs" / "_static" / "reading_w1.png"
RESULTS = results.path_of("reading_w1")
CELLS = (50, 100, 200, 400, 800, 1600)
DIMS = (2, 5, 10, 50, 100)
FACTORS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
N, SEEDS = 800, 3
COLORS = dict(zip(DIMS, ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00"), strict=True))

Row = dict[str, Any]


def floors() -> list[Row]:
    """W1 between two samples of n cells."""
    rows = []
    for dims in DIMS:
        for n in CELLS:
            values = []
            for seed in range(SEEDS):
                x, y = np.random.default_rng([seed, dims, n]).standard_normal((2, n, dims))
                values.append(tw.metrics.wasserstein(x, y))
            rows.append({"dims": dims, "cells": n, "w1": float(np.mean(values)), "sd": float(np.std(values, ddof=1))})
    return rows


def shrinking() -> list[Row]:
    """Scores of a sample times a factor, against another sample."""
    rows = []
    for dims in DIMS:
        for factor in FACTORS:
            w1, energy, ratio = [], [], []
            for seed in range(SEEDS):
                x, y = np.random.default_rng([seed, dims]).standard_normal((2, N, dims))
                w1.append(tw.metrics.wasserstein(factor * x, y))
                energy.append(tw.metrics.energy_distance(factor * x, y))
                ratio.append(tw.metrics.variance_ratio(factor * x, y))
            means = {"w1": np.mean(w1), "energy_distance": np.mean(energy), "variance_ratio": np.mean(ratio)}
            rows.append({"dims": dims, "factor": factor, **{k: float(v) for k, v in means.items()}})
    return rows


def best(rows: list[Row]) -> list[Row]:
    """For each dimension, the factor each score likes best, and what W1 gains by it."""
    out = []
    for dims in DIMS:
        mine = [r for r in rows if r["dims"] == dims]
        low, honest = min(mine, key=lambda r: r["w1"]), next(r for r in mine if r["factor"] == 1)
        out.append(
            {
                "dims": dims,
                "factor_w1": low["factor"],
                "gain_percent": 100 * (1 - low["w1"] / honest["w1"]),
                "variance_ratio": low["variance_ratio"],
                "factor_energy": min(mine, key=lambda r: r["energy_distance"])["factor"],
            }
        )
    return out


def draw(floor: list[Row], shrunk: list[Row]) -> None:
    """Left: the floor over n. Right: the score of a shrunken sample relative to an honest one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.3), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for dims in DIMS:
        mine = [r for r in floor if r["dims"] == dims]
        left.plot(CELLS, [r["w1"] for r in mine], "o-", ms=4, color=COLORS[dims], label=f"{dims}")
        mine = [r for r in shrunk if r["dims"] == dims]
        honest = next(r["w1"] for r in mine if r["factor"] == 1)
        right.plot(FACTORS, [r["w1"] / honest for r in mine], "o-", ms=4, color=COLORS[dims], label=f"{dims}")
    left.set(xscale="log", yscale="log", xlabel="cells in each sample", ylabel="W1 (standard deviations)")
    left.set_xticks(CELLS, [str(n) for n in CELLS])
    left.minorticks_off()
    left.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    left.set_title("two samples of the same population", fontsize=10)
    right.axhline(1, color="#4d4d4d", lw=1, ls="--")
    right.set(
        xlabel="factor by which the prediction is shrunk", ylabel="W1 / W1 of an unshrunken sample", ylim=(0.7, 2.0)
    )
    right.set_title(f"a perfect forecast, shrunk ({N} cells)", fontsize=10)
    right.legend(title="dimensions", frameon=False, fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE)


def main() -> None:
    """Measure, draw, write."""
    floor, shrunk = floors(), shrinking()
    draw(floor, shrunk)
    settings = {"cells": N, "factors": FACTORS, "dims": DIMS}
    result = results.head(settings, range(SEEDS), ["numpy", "POT"])
    results.save(RESULTS, result | {"cells": N, "floor": floor, "shrunk": shrunk, "best": best(shrunk)})


if __name__ == "__main__":
    main()
