"""DataFrames of growth and of genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

_SCORES = ("proliferation_score", "apoptosis_score")


def drivers_df(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Sequence[str] | None = None,
    max_q: float | None = None,
    n_genes: int | None = None,
    key: str | None = None,
) -> pd.DataFrame:
    """Genes that go along with a fate, written by ``tl.drivers``.

    Parameters
    ----------
    adata
        AnnData with drivers.
    groupby
        As in ``tl.drivers``.
    groups
        Fates to keep; all by default.
    max_q
        Keep genes with a q value up to this one.
    n_genes
        Keep this many genes of highest correlation for each fate.
    key
        Key of ``uns``; ``"drivers_<groupby>"`` by default.

    Returns
    -------
    A row for each fate and gene, by falling correlation within a fate: ``group``, ``gene``, ``correlation``,
    ``lower``, ``upper``, ``p_value``, ``q_value``.

    Raises
    ------
    MissingKeyError
        If there are no drivers under the key.
    InputError
        If a fate is unknown.
    """
    key = key or f"drivers_{groupby}"
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or "table" not in entry:
        found = ", ".join(map(repr, adata.uns.keys())) or "none"
        raise MissingKeyError(
            f"uns[{key!r}] holds no drivers; uns keys that exist: {found}. Run tw.tl.drivers(adata, {groupby!r}) first."
        )
    table: pd.DataFrame = entry["table"].copy()
    table["group"], table["gene"] = table["group"].astype(str), table["gene"].astype(str)  # h5ad makes categories
    if groups is not None:
        wanted = [groups] if isinstance(groups, str) else list(groups)
        unknown = sorted(set(wanted) - set(table["group"]))
        if unknown:
            raise InputError(f"groups={unknown} are no fates of uns[{key!r}]; choose from {table['group'].unique()}.")
        table = table[table["group"].isin(wanted)]
    if max_q is not None:
        table = table[table["q_value"] <= max_q]
    if n_genes is not None:
        table = table.groupby("group", sort=False).head(n_genes)
    return table.reset_index(drop=True)


def growth_df(adata: AnnData, *, key: str = "growth") -> pd.DataFrame:
    """Growth of each cell, written by ``pp.growth``.

    Parameters
    ----------
    adata
        AnnData with growth.
    key
        The ``key_added`` of ``pp.growth``.

    Returns
    -------
    A row for each cell: ``cell``, ``growth`` (rate per unit of time) and, where they exist, ``time`` (as it is in
    ``obs``), ``weight``, ``proliferation_score`` and ``apoptosis_score``.

    Raises
    ------
    MissingKeyError
        If there is no growth under ``key``.
    """
    entry = adata.uns.get(key)
    if key not in adata.obs or not isinstance(entry, Mapping):
        raise MissingKeyError(f"obs[{key!r}] and uns[{key!r}] hold no growth; run tw.pp.growth(adata) first.")
    columns = {"cell": adata.obs_names.to_numpy(), "growth": adata.obs[key].to_numpy()}
    sources = {"time": str(entry["time_key"]), "weight": f"{key}_weight"} | {name: name for name in _SCORES}
    present = {name: adata.obs[source].to_numpy() for name, source in sources.items() if source in adata.obs}
    return pd.DataFrame(columns | present)
