"""Small courses of which the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData


def make_course(times=(0.0, 1.0, 3.0), n: int = 120, dims: int = 3, seed: int = 0, speed: float = 2.0) -> AnnData:
    """Gaussian clouds that move along the first axis at ``speed`` per unit of time."""
    rng = np.random.default_rng(seed)
    shift = np.eye(dims)[0] * speed
    x = np.concatenate([0.5 * rng.standard_normal((n, dims)) + t * shift for t in times])
    obs = pd.DataFrame({"time": np.repeat(np.asarray(times), n)}, index=[f"cell{i}" for i in range(len(x))])
    return AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})


def forked(shares=(0.5, 0.5), n=200, noise=0.15, seed=0):
    """Cells that start together at time 0, part at time 1 and end as A or B; the side is decided from time 1 on."""
    rng = np.random.default_rng(seed)
    up = rng.random(n) < shares[0]
    x = [rng.normal(0, noise, (n, 2))]
    for t, y in ((1.0, 1.0), (2.0, 2.0)):
        side = np.where(up, y, -y)
        x.append(np.c_[np.full(n, t), side] + rng.normal(0, noise, (n, 2)))
    side = np.where(up, "A", "B")
    labels = np.r_[np.full(n, "start"), side, side]
    obs = pd.DataFrame({"time": np.repeat([0.0, 1.0, 2.0], n), "type": pd.Categorical(labels)})
    obs.index = [f"c{i}" for i in range(3 * n)]
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate(x)})
