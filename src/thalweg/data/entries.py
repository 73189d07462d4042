"""What earlier calls left in ``uns``: where a fit lies, and how growth rates were made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData


def find_fit(adata: AnnData, key: str) -> Mapping[str, Any]:
    """``adata.uns[key]``, if it is a fit.

    Raises
    ------
    MissingKeyError
        If there is no such key; lists those of ``uns``.
    InputError
        If something else lies there.
    """
    if key not in adata.uns:
        found = ", ".join(map(repr, adata.uns.keys())) or "none"
        raise MissingKeyError(f"adata.uns[{key!r}] does not exist; keys that exist: {found}. Run tw.tl.fit first.")
    entry: Mapping[str, Any] = adata.uns[key]
    if not isinstance(entry, Mapping) or "format" not in entry:
        raise InputError(f"adata.uns[{key!r}] is not a fit written by thalweg; give key= the key_added of tw.tl.fit.")
    return entry


def plan_relaxation(adata: AnnData, growth_key: str) -> float | None:
    """The relaxation of growth rates that `thalweg.pp.growth` made of plans between times; None for any others."""
    entry = adata.uns.get(growth_key)
    if isinstance(entry, Mapping) and entry.get("method") == "unbalanced" and "relaxation" in entry:
        return float(entry["relaxation"])
    return None
