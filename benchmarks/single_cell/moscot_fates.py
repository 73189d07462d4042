"""Fates along moscot's plans between neighbouring days. Run by `velocity.py` in an interpreter that has moscot.

The plans are those of its tutorial: ``epsilon=1e-3``, ``tau_a=0.95`` (the earlier side is relaxed), cost over its mean.
They are composed from day to day; a cell's fate is the share of each group among what it becomes, and that of all cells
of the last time where it becomes nothing that has a group.

    python -m benchmarks.single_cell.moscot_fates course.npz
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

SETTINGS = {"epsilon": 1e-3, "tau_a": 0.95, "scale_cost": "mean"}


def main() -> None:
    warnings.simplefilter("ignore")
    from moscot.problems.time import TemporalProblem

    path = Path(sys.argv[1])
    given = np.load(path, allow_pickle=False)
    x, time, p = given["x"], given["time"], given["groups"].astype(float)
    obs = pd.DataFrame({"time": time}, index=[f"cell{i}" for i in range(len(x))])
    adata = anndata.AnnData(x.copy(), obs=obs, obsm={"X_pca": x})
    adata.obs["time"] = adata.obs["time"].astype("category")
    problem = TemporalProblem(adata).prepare(time_key="time", joint_attr="X_pca").solve(**SETTINGS)
    for t0, t1 in reversed(list(pairwise(np.unique(time).tolist()))):
        plan = np.asarray(problem[t0, t1].solution.transport_matrix, dtype=float)
        later = plan @ p[time == t1]
        later[later.sum(1) <= 0] = given["groups"][time == time.max()].sum(0)
        p[time == t0] = later / later.sum(1, keepdims=True)
    np.save(path.parent / "fates.npy", p)
    peers.answer("moscot", {"n": len(x)}, SETTINGS)


if __name__ == "__main__":
    main()
