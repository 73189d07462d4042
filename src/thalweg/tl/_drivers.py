r"""`tl.drivers`: genes whose expression goes along with a fate.

The correlation ``r`` of a gene with the probability of a fate, over ``n`` cells in ``k`` strata (one without strata),
is that of the deviations from the means of each stratum. With normal deviations,

.. math:: t = r \sqrt{\frac{n - k - 1}{1 - r^2}}, \qquad \tanh\Big(\operatorname{artanh} r \pm
          \frac{z}{\sqrt{n - k - 2}}\Big)

are the test of no correlation (Student's ``t``, ``n - k - 1`` degrees of freedom) and the interval of Fisher (1921).
Where the fates have draws, the variance of ``artanh r`` over them is added to ``1 / (n - k - 2)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.expression import Columns, Floats, dense, expression_matrix, gene_columns
from thalweg.data.fates import read_draws, read_fates
from thalweg.data.times import TimeMap, obs_column, parse_times
from thalweg.data.writing import writable
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

_CELLS_GENES = 2**24  # numbers made dense at once, 128 MiB
_ROUNDING = 1e-12  # of a gene's sum of squares; less than this is a constant


def drivers(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Sequence[str] | None = None,
    genes: Sequence[str] | None = None,
    layer: str | None = None,
    time_key: str | None = None,
    time_map: TimeMap | None = None,
    until: float | None = None,
    condition_key: str | None = None,
    level: float = 0.95,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Correlate every gene with the probability of each fate.

    With ``time_key`` the correlation is within times: cells are compared with others of their time, so that a gene
    which merely changes with time drives nothing. p values are two-sided; q values are those of Benjamini & Hochberg
    (1995), over the genes of a fate.

    Cells are taken as independent. The tests take the fates as given; the intervals contain how far draws of the cells
    or models differ, where `fate` made draws. Fates computed from the same genes make p values small by
    themselves: rank genes by correlation, and read q as the noise of sampling cells, not as proof of a cause.

    Parameters
    ----------
    adata
        Cells with expression (log-normalised, as a rule) and fates.
    groupby
        As in `fate`: ``obsm["fate_<groupby>"]`` is read, a DataFrame with a column for each fate.
    groups
        Fates to test; all by default.
    genes
        Genes to test; all by default.
    layer
        Layer with the expression; ``X`` by default.
    time_key, time_map
        Times; correlations are then within times.
    until
        Use only cells observed at or before this time, e.g. before the fates are reached; needs ``time_key``.
    condition_key
        Column of ``obs``; correlations are then within conditions, too.
    level
        Coverage of the intervals.
    key_added
        Key of ``uns``; ``"drivers_<groupby>"`` by default.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.uns[key_added]`` : dict
        ``table``, a DataFrame with a row for each fate and gene (``group``, ``gene``, ``correlation``, ``lower``,
        ``upper``, ``p_value``, ``q_value``), by falling correlation within a fate; and ``params``. Read it with
        ``tw.get.drivers_df``. Genes (and fates) that are constant have NaN and are not counted as tests.

    Raises
    ------
    MissingKeyError
        If fates, a gene, a column or the layer does not exist.
    InputError
        If too few cells are left, a fate is unknown, or values cannot be used.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, found {level!r}.")
    fates = _chosen(read_fates(adata, groupby), groups)
    draws = read_draws(adata, groupby, list(map(str, fates.columns)))
    time = None if time_key is None else parse_times(adata, time_key, time_map)
    if until is not None and time is None:
        raise InputError(f"until={until:g} needs time_key, to know which cells were observed by then.")
    rows = np.arange(adata.n_obs) if until is None or time is None else np.flatnonzero(time <= until)
    parts: list[NDArray[Any]] = [] if time is None else [time]
    if condition_key is not None:
        parts.append(_codes(adata, condition_key))
    strata = _strata([p[rows] for p in parts], len(rows))
    freedom = len(rows) - int(strata.max(initial=0)) - 1  # cells less strata
    if freedom < 4:
        raise InputError(
            f"{len(rows)} cells in {int(strata.max(initial=-1)) + 1} strata (times x conditions) are too few to "
            "correlate; raise until, or leave time_key or condition_key out."
        )
    columns = np.arange(adata.n_vars) if genes is None else gene_columns(adata, genes)
    matrix = expression_matrix(adata, layer)
    r = _correlate(matrix, rows, columns, fates.to_numpy()[rows], strata)
    each = [] if draws is None else list(draws.swapaxes(0, 1))
    by_draw = [_correlate(matrix, rows, columns, one[rows], strata) for one in each]
    table = _tests(r, _differ(r, by_draw), freedom, level, [str(f) for f in fates.columns], adata.var_names[columns])
    constant = int(table["correlation"].isna().sum())
    out = writable(adata, copy)
    key = key_added or f"drivers_{groupby}"
    params = {"groupby": groupby, "level": level, "n_cells": len(rows), "n_strata": len(rows) - freedom}
    out.uns[key] = {"table": table, "params": params | {"until": np.nan if until is None else float(until)}}
    logger.info(
        "added uns[%r]: %d genes x %d fates over %d cells%s", key, len(columns), r.shape[1], len(rows),
        f" ({constant} constant pairs without a test)" if constant else "",
    )  # fmt: skip
    return out if copy else None


def _chosen(fates: pd.DataFrame, groups: str | Sequence[str] | None) -> pd.DataFrame:
    if groups is None:
        return fates
    by_name = {str(name): name for name in fates.columns}
    wanted = [groups] if isinstance(groups, str) else list(groups)
    unknown = [g for g in wanted if str(g) not in by_name]
    if unknown:
        raise InputError(f"groups={unknown} are no fates; choose from {list(by_name)}.")
    return fates[[by_name[str(g)] for g in wanted]]


def _strata(parts: Sequence[NDArray[Any]], n: int) -> NDArray[np.intp]:
    """Number of the stratum of each cell, from zero."""
    if not parts:
        return np.zeros(n, dtype=np.intp)
    codes: NDArray[np.intp] = np.unique(np.column_stack(parts), axis=0, return_inverse=True)[1].reshape(-1)
    return codes


def _codes(adata: AnnData, condition_key: str) -> NDArray[np.intp]:
    column = obs_column(adata, condition_key, "condition_key")
    if column.isna().any():
        raise InputError(
            f"obs[{condition_key!r}] has {int(column.isna().sum())} missing values; every cell needs a condition."
        )
    return pd.factorize(column)[0]


def _correlate(
    matrix: Any, rows: NDArray[np.intp], columns: Columns, fates: Floats, strata: NDArray[np.intp]
) -> Floats:
    """Correlation of genes with fates within strata, shape ``(n_genes, n_fates)``; NaN where one is constant."""
    cells = matrix if len(rows) == matrix.shape[0] else matrix[rows]
    if hasattr(cells, "tocsc"):
        cells = cells.tocsc()
    f, f_size = _within(fates, strata)
    width = max(1, _CELLS_GENES // len(rows))
    out = []
    for start in range(0, len(columns), width):
        x, x_size = _within(dense(cells, columns[start : start + width]), strata)
        with np.errstate(invalid="ignore", divide="ignore"):
            out.append(x.T @ f / (x_size[:, None] * f_size))
    return np.clip(np.concatenate(out), -1, 1)


def _within(x: Floats, strata: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Deviations from the means of the strata, and their lengths; all zero where nothing but rounding is left."""
    from scipy.sparse import csr_array

    n = len(strata)
    member = csr_array((np.ones(n), (strata, np.arange(n))))
    centred = x - (member @ x / member.sum(1)[:, None])[strata]
    size = np.square(centred).sum(0)
    constant = size <= _ROUNDING * np.square(x).sum(0)
    centred[:, constant], size[constant] = 0, 0
    return centred, np.sqrt(size)


def _differ(r: Floats, by_draw: Sequence[Floats]) -> Floats:
    """Mean square difference of the correlations by each draw, on Fisher's scale; zero without draws."""
    if not by_draw:
        return np.zeros_like(r)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.square(np.arctanh(np.stack(by_draw)) - np.arctanh(r))
    known = np.isfinite(away)  # a draw in which the fate is constant has no correlation
    out: Floats = np.where(known, away, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return out


def _tests(r: Floats, differ: Floats, freedom: int, level: float, fates: list[str], genes: pd.Index) -> pd.DataFrame:
    """Intervals and tests; ``freedom`` is cells less strata, ``differ`` the variance that comes with the fates."""
    from scipy import stats

    with np.errstate(divide="ignore"):
        p = 2 * stats.t.sf(np.abs(r) * np.sqrt((freedom - 1) / (1 - r**2)), freedom - 1)
        centre, half = np.arctanh(r), stats.norm.ppf((1 + level) / 2) * np.sqrt(1 / (freedom - 2) + differ)
    frames = []
    for k, fate in enumerate(fates):
        q = np.full(len(genes), np.nan)
        tested = ~np.isnan(p[:, k])
        if tested.any():
            q[tested] = stats.false_discovery_control(p[tested, k], method="bh")
        frame = pd.DataFrame({"group": fate, "gene": genes.astype(str), "correlation": r[:, k]})
        frame["lower"], frame["upper"] = np.tanh(centre[:, k] - half[:, k]), np.tanh(centre[:, k] + half[:, k])
        frame["p_value"], frame["q_value"] = p[:, k], q
        frames.append(frame.sort_values("correlation", ascending=False, kind="stable", na_position="last"))
    return pd.concat(frames, ignore_index=True)
