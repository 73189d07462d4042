"""The entry of `tl.assess`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from thalweg.errors import MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

_PARTS = ("verdict", "rule", "share", "share_low", "share_high", "evidence", "scores", "methods")


def assessment_df(adata: AnnData, *, key: str = "assessment") -> pd.DataFrame:
    """Evidence of an assessment, written by `thalweg.tl.assess`.

    Parameters
    ----------
    adata
        AnnData with an assessment.
    key
        The ``key_added`` of ``tl.assess``.

    Returns
    -------
    A row for each check: ``check``, ``level`` ("good", "doubt", "bad" or "missing"), ``value`` (the figure behind it,
    NaN without one), ``says`` and ``advice``. ``.attrs["verdict"]`` is the verdict.

    Raises
    ------
    MissingKeyError
        If there is no assessment under ``key``.
    """
    entry = find_assessment(adata, key)
    out = entry["evidence"].copy()
    out.attrs["verdict"] = str(entry["verdict"])
    return out


def find_assessment(adata: AnnData, key: str) -> Mapping[str, Any]:
    """``uns[key]``.

    Raises
    ------
    MissingKeyError
        If it holds no assessment.
    """
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or not set(_PARTS) <= set(entry):
        raise MissingKeyError(f"uns[{key!r}] holds no assessment; run tw.tl.assess(adata, time_key) first.")
    return entry
