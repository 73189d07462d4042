"""`get.compare_df`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

Table = Literal["fates", "composition", "divergence", "genes"]


def compare_df(adata: AnnData, table: Table = "fates", *, key: str = "compare") -> pd.DataFrame:
    """What `thalweg.tl.compare` found, as a table.

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.compare` wrote.
    table
        ``"fates"``, ``"composition"``, ``"divergence"`` or ``"genes"``; the columns are those of `thalweg.tl.compare`.
    key
        Its key in ``uns``.

    Returns
    -------
    A copy, with the column ``arm`` first.

    Raises
    ------
    MissingKeyError
        If there is no comparison under ``key``.
    InputError
        If there is no such table.
    """
    if table not in get_args(Table):
        raise InputError(f"table must be one of {list(get_args(Table))}, found {table!r}.")
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or table not in entry:
        found = ", ".join(map(repr, adata.uns.keys())) or "none"
        raise MissingKeyError(
            f"adata.uns[{key!r}] holds no comparison; keys of uns that exist: {found}. Run tw.tl.compare first."
        )
    out = pd.DataFrame(entry[table])
    return out[["arm", *(name for name in out.columns if name != "arm")]].copy()
