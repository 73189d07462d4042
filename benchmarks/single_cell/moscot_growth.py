"""Growth by moscot's plans between neighbouring days. Run by `growth.py` in an interpreter that has moscot.

The first plans are those of its tutorial: ``epsilon=1e-3``, ``tau_a=0.95`` (the earlier side is relaxed), cost over its
mean. The others are the settings that came nearest to the truth of a grid, which a user could not know. Every cell has
a mass of one on both sides, so that the sizes of the populations are known to it. What leaves a cell is the number of
its descendants.

    python -m benchmarks.single_cell.moscot_growth course.npz
"""

from __future__ import annotations

import sys
import warnings
from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from benchmarks.common import peers

SETTINGS = [
    {"epsilon": 1e-3, "tau_a": 0.95, "scale_cost": "mean"},
    {"epsilon": 1e-2, "tau_a": 0.99, "scale_cost": "mean"},
    {"epsilon": 5e-2, "tau_a": 0.99, "scale_cost": "mean"},
]


def main() -> None:
    warnings.simplefilter("ignore")
    from moscot.problems.time import TemporalProblem

    path = Path(sys.argv[1])
    given = np.load(path, allow_pickle=False)
    x, time = given["x"], given["time"]
    obs = pd.DataFrame({"time": time, "mass": 1.0}, index=[f"cell{i}" for i in range(len(x))])
    adata = anndata.AnnData(x.copy(), obs=obs, obsm={"X_pca": x})
    adata.obs["time"] = adata.obs["time"].astype("category")
    problem = TemporalProblem(adata).prepare(time_key="time", joint_attr="X_pca", a="mass", b="mass")
    descendants = np.full((len(SETTINGS), len(x)), np.nan)
    for row, settings in zip(descendants, SETTINGS, strict=True):
        solved = problem.solve(**settings)
        for t0, t1 in pairwise(np.unique(time).tolist()):
            row[time == t0] = np.asarray(solved[t0, t1].solution.transport_matrix, dtype=float).sum(1)
    np.save(path.parent / "descendants.npy", descendants)
    peers.answer("moscot", {"n": len(x)}, {"plans": SETTINGS})


if __name__ == "__main__":
    main()
