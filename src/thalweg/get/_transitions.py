"""Couplings, transition tables and fates as sparse matrices and DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from thalweg.data.fates import fate_interval
from thalweg.data.times import obs_column
from thalweg.data.transitions import read_transitions
from thalweg.errors import InputError, MissingKeyError
from thalweg.get._colors import categories

if TYPE_CHECKING:
    from anndata import AnnData


def couplings(
    adata: AnnData, *, key: str = "transition", normalize: Literal["rows", "total", "none"] = "rows"
) -> dict[tuple[float, float], sparse.csr_matrix]:
    """Couplings between observed times.

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.transition` wrote.
    key
        Its key in ``obsp`` and ``uns``.
    normalize
        ``"rows"``: transition probabilities, every row summing to one. ``"total"``: a transport plan, the mass of pairs
        of cells with the weights and growth of the earlier ones, summing to one. ``"none"``: as stored, each row
        summing to the relative growth of its cell.

    Returns
    -------
    For each coupled pair ``(t0, t1)`` with cells in ``adata`` a csr matrix, float64, with a row for each cell of ``t0``
    and a column for each of ``t1``, in the order of ``adata``. Rows of cells that are not coupled are empty.

    Raises
    ------
    MissingKeyError
        If there are no couplings under ``key``.
    InputError
        If ``normalize`` is unknown, or no pair of coupled times is left.
    """
    if normalize not in ("rows", "total", "none"):
        raise InputError(f"normalize must be 'rows', 'total' or 'none', found {normalize!r}.")
    transitions = read_transitions(adata, key)
    out = {}
    for pair in transitions.pairs:
        block = transitions.block(*pair)
        if normalize == "rows":
            block = sparse.diags(_inverse(_sums(block))) @ block
        elif normalize == "total":
            block = sparse.diags(transitions.share(pair[0])) @ block
            block = block * float(_inverse(np.array([block.sum()]))[0])
        out[pair] = sparse.csr_matrix(block)
    return out


def transition_df(
    adata: AnnData,
    groupby: str,
    *,
    t0: float | None = None,
    t1: float | None = None,
    direction: Literal["forward", "backward"] = "forward",
    key: str = "transition",
) -> pd.DataFrame:
    """What the cells of each group become, or where they came from.

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.transition` wrote.
    groupby
        Column of ``obs`` with the groups, such as cell types; cells without one are left out.
    t0, t1
        Observed times, the first and last coupled ones by default. Times that are not coupled themselves are joined
        along those between.
    direction
        ``"forward"``: rows are the groups at ``t0``, columns their descendants' groups at ``t1``. ``"backward"``: rows
        are the groups at ``t1``, columns their ancestors' groups at ``t0``.
    key
        Key of ``obsp`` and ``uns`` with the couplings.

    Returns
    -------
    A row for each group with cells at the one time and a column for each at the other; the rows sum to one, and are NaN
    where no coupling leaves or reaches the group. Cells count by their weights and growth.

    Raises
    ------
    MissingKeyError
        If there are no couplings or no such column.
    InputError
        If no couplings lead from ``t0`` to ``t1``, or ``direction`` is unknown.
    """
    if direction not in ("forward", "backward"):
        raise InputError(f"direction must be 'forward' or 'backward', found {direction!r}.")
    transitions = read_transitions(adata, key)
    early, late = float(transitions.times[0] if t0 is None else t0), float(transitions.times[-1] if t1 is None else t1)
    column = obs_column(adata, groupby, "groupby")
    names, codes = (
        categories(column),
        pd.Categorical(column.astype(str).where(column.notna()), categories(column)).codes,
    )
    first, last = (_members(codes[transitions.rows(t)], len(names)) for t in (early, late))
    if direction == "forward":
        table = transitions.push(first * transitions.share(early), early, late) @ last.T
        rows, cols = first.any(1), last.any(1)
    else:
        table = transitions.pull(last * transitions.share(late), late, early) @ first.T
        rows, cols = last.any(1), first.any(1)
    table = table[rows][:, cols]
    total = table.sum(1, keepdims=True)
    shares = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    index, columns = pd.Index(np.array(names)[rows]), pd.Index(np.array(names)[cols])
    source, target = (early, late) if direction == "forward" else (late, early)
    index.name, columns.name = f"{groupby} at {source:g}", f"{groupby} at {target:g}"
    return pd.DataFrame(shares, index=index, columns=columns)


def fate_df(adata: AnnData, groupby: str, *, level: float = 0.95, key: str | None = None) -> pd.DataFrame:
    """Fates of the cells, long.

    Parameters
    ----------
    adata
        Cells with what `thalweg.tl.fate` wrote.
    groupby
        Column of ``obs`` the fates are groups of.
    level
        Coverage of the intervals.
    key
        Key of ``obsm``; ``"fate_<groupby>"`` by default.

    Returns
    -------
    A row for each cell and terminal group: ``cell``, the time under its own name, ``group`` (category),
    ``probability``, its standard error ``se`` and the limits ``lower`` and ``upper`` of its interval, and of the cell
    ``fate`` (most probable group) and ``confidence``. Intervals cover the truth at their level where the fates were
    made with ``n_draws`` (eight, say); without them they are too narrow (:doc:`/guide/trust`).

    Raises
    ------
    MissingKeyError
        If there are no fates.
    InputError
        If ``level`` is not between 0 and 1.
    """
    if not (isinstance(level, int | float | np.number) and 0 < level < 1):
        raise InputError(f"level must lie between 0 and 1, found {level!r}.")
    name = key or f"fate_{groupby}"
    if name not in adata.obsm or name not in adata.uns:
        found = ", ".join(map(repr, adata.obsm.keys())) or "none"
        raise MissingKeyError(
            f"adata.obsm[{name!r}] does not exist; obsm keys that exist: {found}. Run tw.tl.fate(adata, {groupby!r})."
        )
    fates: pd.DataFrame = adata.obsm[name]
    groups = [str(c) for c in fates.columns]
    n, k = fates.shape
    time_key = str(adata.uns[name]["time_key"])
    cell = np.repeat(np.arange(n), k)
    p = fates.to_numpy(dtype=np.float64).ravel()
    errors = adata.obsm.get(f"{name}_se")  # none in results of earlier releases
    known = pd.DataFrame(index=fates.index) if errors is None else errors
    error = known.reindex(columns=fates.columns).to_numpy(dtype=np.float64).ravel()
    lower, upper = fate_interval(p, error, level)
    return pd.DataFrame(
        {
            "cell": adata.obs_names.to_numpy()[cell],
            time_key: adata.obs[time_key].array[cell],
            "group": pd.Categorical.from_codes(np.tile(np.arange(k), n), groups),
            "probability": p,
            "se": error,
            "lower": lower,
            "upper": upper,
            "fate": adata.obs[name].array[cell],
            "confidence": adata.obs[f"{name}_confidence"].to_numpy()[cell],
        }
    )


def _sums(matrix: sparse.csr_matrix) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(1), dtype=np.float64).ravel()


def _inverse(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _members(codes: NDArray[np.int8], n_groups: int) -> NDArray[np.float64]:
    """Indicator of each group, shape ``(n_groups, n_cells)``."""
    return (codes[None] == np.arange(n_groups)[:, None]).astype(np.float64)
