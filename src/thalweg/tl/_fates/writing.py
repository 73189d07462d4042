"""Fates as an AnnData holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg.data.cells import Floats
from thalweg.data.fates import draws_frame
from thalweg.tl._fates.futures import Found

if TYPE_CHECKING:
    from anndata import AnnData


def write_fates(out: AnnData, name: str, found: Found, groups: list[str]) -> None:
    """The fates and how sure they are; draws of an earlier call go. A cell without fates has NaN."""
    best = np.where(np.isnan(found.p).any(1), -1, found.p.argmax(1))
    out.obsm[name] = pd.DataFrame(found.p, index=out.obs_names, columns=groups)
    out.obsm[f"{name}_se"] = pd.DataFrame(found.error, index=out.obs_names, columns=groups)
    out.obs[name] = pd.Categorical.from_codes(best, groups)
    out.obs[f"{name}_confidence"] = _confidence(found.p)
    out.obs[f"{name}_se"] = found.error[np.arange(len(best)), best]
    out.obsm.pop(f"{name}_draws", None)
    if found.draws is not None:
        out.obsm[f"{name}_draws"] = draws_frame(found.draws, groups, out.obs_names)


def _confidence(p: Floats) -> Floats:
    if p.shape[1] == 1:
        return np.ones(len(p))
    log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.clip(1 + (p * log_p).sum(1) / np.log(p.shape[1]), 0.0, 1.0)
