"""DataFrames behind the plots and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from thalweg.data.entries import find_fit
from thalweg.errors import MissingKeyError

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
    with conditions, ``condition``; where the dynamics are learned beside the prediction, the ``dynamics_seconds`` of
    their plan and the ``growth`` of the population over the interval, as a factor.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    """
    return _entry(adata, key, "intervals")


def reconstruction_df(adata: AnnData, *, key: str = "thalweg") -> pd.DataFrame:
    """How well a fit returns the populations it was trained on.

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.

    Returns
    -------
    A row for each time after the first (and ``condition``): ``time``; ``w1`` between the first population, rolled out
    to there, and the observed one; ``floor``, the W1 of two disjoint halves of the observed cells; ``still``, the W1 of
    the first population as it is, all in units of the representation and on at most 300 cells of a time; ``mass``, the
    size of the population relative to the first, ``counted``, the same of the sizes given to `thalweg.tl.fit` (NaN
    without), and ``mass_error``, relative.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``, or it was not checked.
    """
    if "reconstruction" not in find_fit(adata, key):
        raise MissingKeyError(
            f"the fit in uns[{key!r}] has no reconstruction: it was made with check=False, by method 'fm' or by an "
            "earlier release. Run tw.tl.fit again."
        )
    return _entry(adata, key, "reconstruction")


def _entry(adata: AnnData, key: str, name: str) -> pd.DataFrame:
    frame: pd.DataFrame = find_fit(adata, key)[name].copy()
    return frame
