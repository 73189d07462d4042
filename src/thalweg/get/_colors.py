"""Colours of categories: those of scanpy where it left them, else a palette safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from thalweg._settings import logger
from thalweg.errors import MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

# Okabe & Ito (2008), then the muted scheme of Tol (2021) for those that do not fit
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TOL = ("#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#661100",
       "#6699CC", "#AA4466")  # fmt: skip


def colors(adata: AnnData, key: str) -> dict[str, str]:
    """Colour of each category of a column, as scanpy draws it.

    Parameters
    ----------
    adata
        Cells; nothing is written.
    key
        Column of ``obs``.

    Returns
    -------
    Hexadecimal colour for each category, in their order: those of ``uns["<key>_colors"]`` if they are there, else of a
    palette that colour-blind readers can tell apart (up to 12 categories; more need labels, not colours).

    Raises
    ------
    MissingKeyError
        If ``obs`` has no such column.
    """
    if key not in adata.obs:
        found = ", ".join(map(repr, adata.obs.columns)) or "none"
        raise MissingKeyError(f"adata.obs[{key!r}] does not exist; columns that exist: {found}.")
    names = categories(adata.obs[key])
    kept = [str(c) for c in adata.uns.get(f"{key}_colors", [])]
    if kept and len(kept) < len(names):
        logger.warning("uns['%s_colors'] has %d colours for %d categories; not used", key, len(kept), len(names))
        kept = []
    return dict(zip(names, kept or palette(len(names)), strict=False))


def categories(column: pd.Series) -> list[str]:
    """Names of the categories of a column, in their order; text and numbers sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(c) for c in column.cat.categories]
    return [str(c) for c in sorted(column.dropna().unique())]


def palette(n: int) -> list[str]:
    """``n`` colours, repeated only beyond twelve."""
    chosen: Sequence[str] = OKABE_ITO if n <= len(OKABE_ITO) else TOL
    return [chosen[i % len(chosen)] for i in range(n)]
