"""DataFrames behind the plots and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from thalweg.data.entries import find_fit

if TYPE_CHECKING:
    from anndata import AnnData


def history(adata: AnnData, *, key: str = "thalweg") -> pd.DataFrame:
    """Training history of a fit.

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.

    Returns
    -------
    Columns ``step``, a mean loss for each term, ``loss``, ``learning_rate`` and ``validation_loss``.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    """
    return _entry(adata, key, "history")


def intervals(adata: AnnData, *, key: str = "thalweg") -> pd.DataFrame:
    """Couplings of a fit.

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.

    Returns
    -------
    A row for each coupling: ``t0``, ``t1``, ``n0``, ``n1`` (cells), ``coupling``, ``regularisation``, ``seconds`` and,
    with conditions, ``condition``.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    """
    return _entry(adata, key, "intervals")


def _entry(adata: AnnData, key: str, name: str) -> pd.DataFrame:
    frame: pd.DataFrame = find_fit(adata, key)[name].copy()
    return frame
