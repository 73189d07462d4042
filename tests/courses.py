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
