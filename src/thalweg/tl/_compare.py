"""`tl.compare`: what differs between the arms of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger, settings
from thalweg.data.arms import arms as arms_of
from thalweg.data.cells import Cells, Floats, Rows
from thalweg.data.entries import find_fit
from thalweg.data.expression import check_logged, expression_matrix
from thalweg.data.recipe import Columns, columns_of
from thalweg.data.times import obs_column
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.store import Stored, load_fit
from thalweg.tl._comparison.tables import (
    LEVEL,
    Shares,
    composition,
    divergence,
    gene_shifts,
    onset,
    shares_table,
    with_q,
)
from thalweg.tl._comparison.units import Arms, Unit, fitted_units, make_arms
from thalweg.tl._fates.anew import first_fates
from thalweg.tl._stored.reading import cells_of

if TYPE_CHECKING:
    from anndata import AnnData

TABLES = ("fates", "composition", "divergence", "genes")
"""What `compare` finds, by name."""


def compare(
    adata: AnnData,
    condition_key: Columns,
    groupby: str,
    *,
    replicate_key: str | None = None,
    reference: str | None = None,
    key: str = "thalweg",
    genes: bool | None = None,
    layer: str | None = None,
    n_neighbors: int = 15,
    bandwidth: float | None = None,
    key_added: str = "compare",
    rng: Rng = None,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    r"""What differs between the arms of an experiment: fates, composition, when they part, and genes.

    The replicates of an arm are its units, for only they tell what another experiment would give. Each is fitted again
    by itself, so that replicates of one arm do not share the error of one fit.

    *Fates and composition.* Of the first cells of a unit, or of its cells at a time, a number is in each group. Shares
    of the arms are compared by a quasi-binomial F test whose dispersions are moderated over the groups
    (`thalweg.core.comparison.shares.quasi_binomial`; Lund et al. 2012), which speaks at three replicates.

    *When they part.* At each time two tests are made and their p values combined (Liu & Xie 2020): of the shares of the
    groups, and of the mean coordinates of the units (Smyth 2004), less those at the unit's first time. The onset is the
    first time at which they differ, at the level .05 over all times (Holm 1979). How far the flows part is shown by the
    same start cells, carried by the flow of each arm.

    *Genes.* Mean expression of the units from the onset on, less that at their first time, by moderated t tests.

    Parameters
    ----------
    adata
        Cells with a fit that has conditions.
    condition_key
        The ``condition_key`` of the fit: one column of ``obs``, or several.
    groupby
        Column of ``obs`` with the groups, such as cell types. Fates are among those at the last time of both arms.
    replicate_key
        Column of ``obs`` with the replicate of each cell. Without it there are no p values.
    reference
        Arm that the others are compared with; the first category of the conditions by default.
    key
        Key of ``uns`` with the fit.
    genes
        Whether to test genes; by default where ``X`` or ``layer`` holds log-transformed expression.
    layer
        Layer with the expression; ``X`` by default.
    n_neighbors, bandwidth
        As in `fate`.
    key_added
        Key of ``uns`` to write.
    rng
        Seed of the fits of the units.
    device
        Where to run the flows.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets ``adata.uns[key_added]``, a dict that `thalweg.get.compare_df` reads:

    ``fates``
        DataFrame, a row for each arm but the reference and each fate: the ``share_reference`` and ``share`` of the
        first cells that end there, their ``difference`` with its 95 % interval from ``low`` to ``high``, the
        ``log_odds_ratio`` with its standard error, ``p``, and ``q`` over the fates (Benjamini and Hochberg 1995).
    ``composition``
        DataFrame, the same for the cells of each ``time`` at which both arms have cells of their own; ``q`` over all.
    ``divergence``
        DataFrame, a row for each time, observed or between: ``separation``, the mean distance of the paths of one
        start cell; ``energy``, the energy distance of the two populations of paths; ``replicates``, that of two
        replicates of an arm; ``p`` and ``p_adjusted``.
    ``genes``
        DataFrame, a row for each gene: ``difference`` with its interval, ``p`` and ``q``; empty without expression.
    ``onset``
        DataFrame, the ``time`` from which each ``arm`` differs, NaN where none was found.
    ``params``
        What was done.

    Raises
    ------
    MissingKeyError
        If there is no fit, or a column does not exist.
    InputError
        If the fit has other conditions or fewer than two, the reference is none of them, two arms were never observed
        at the same time, or expression is not log-transformed where genes were asked for.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.experiment(counts=False, rng=0)
    >>> tw.tl.fit(adata, "time", condition_key="condition", baseline="baseline", use_rep="X_latent", rng=0)
    >>> tw.tl.compare(adata, "condition", "cell_type", replicate_key="replicate")
    >>> tw.get.compare_df(adata, "fates")
    """
    generator, stored = resolve_rng(rng), load_fit(find_fit(adata, key), key, device)
    _check_conditions(stored, condition_key)
    cells = cells_of(adata, stored, replace(stored.recipe, replicate_key=replicate_key))
    base = _reference(adata, condition_key, cells, reference)
    column = obs_column(adata, groupby, "groupby")
    codes, groups = pd.factorize(column.astype(str).where(column.notna()), sort=True)
    codes = codes.astype(np.int64)[cells.sources]
    fates = _Fates(stored, codes, [str(g) for g in groups], n_neighbors, bandwidth, generator)
    _remark_on_replicates(cells)
    values = _expression(adata, layer, genes, cells)
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    onsets = {}
    for other in (c for c in np.unique(cells.condition).tolist() if c != base):
        arms, arm = make_arms(cells, base, other), cells.conditions[other]
        shares = composition(arms, codes, fates.groups)
        apart = divergence(arms, shares, stored)
        onsets[arm] = onset(apart)
        along = pd.DataFrame() if values is None else gene_shifts(arms, adata.var_names, values, onsets[arm])
        for name, table in zip(TABLES, (fates(arms), shares, apart, along), strict=True):
            found[name].append(table.assign(arm=arm))
        _remark(arms, found, onsets[arm])
    out = writable(adata, copy)
    out.uns[key_added] = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    out.uns[key_added] |= {
        "onset": pd.DataFrame({"arm": list(onsets), "time": list(onsets.values())}),
        "params": {
            "key": key,
            "condition_key": np.array(columns_of(condition_key)),
            "groupby": groupby,
            "replicate_key": replicate_key or "",
            "reference": cells.conditions[base],
            "time_key": stored.recipe.time_key,
            "method": stored.method.name,
        },
    }
    logger.info("added uns[%r]: %s against %s", key_added, ", ".join(onsets), cells.conditions[base])
    return out if copy else None


@dataclass(frozen=True)
class _Fates:
    """Makes the table of fates of two arms, of which each unit is fitted again.

    ``codes`` and ``groups`` are those of all cells, ``done`` the fates of units by their cells and the fates they have,
    for the reference is compared with each arm; the rest are options of `compare`.
    """

    stored: Stored
    codes: Rows
    groups: Sequence[str]
    n_neighbors: int
    bandwidth: float | None
    rng: np.random.Generator
    done: dict[tuple[bytes, bytes], tuple[Floats, int]] = field(default_factory=dict)

    def __call__(self, arms: Arms) -> pd.DataFrame:
        """A row for each fate."""
        terminal = np.unique(self.codes[arms.last_cells()])
        terminal = terminal[terminal >= 0]
        number = np.full(len(self.groups) + 1, -1)  # the last entry is that of no group
        number[terminal] = np.arange(len(terminal))
        fitted, counts, totals = fitted_units(arms), [], []
        if len(set(arms.arm[fitted].tolist())) < 2:
            logger.warning(
                "an arm has no replicate with cells of two times, so fates have no p values. If every time has samples "
                "of its own, number them alike at each time ('1', '2', '3'): which of them go together does not matter"
            )
            arms = make_arms(replace(arms.cells, replicate=None, replicate_names=()), arms.reference, arms.other)
            fitted = list(range(len(arms.units)))
        for i in tqdm(fitted, desc="replicates", disable=not settings.progress):
            share, n = self._of(arms, arms.units[i], number)
            counts.append(share * n)
            totals.append(n)
        found = Shares(np.stack(counts), np.array(totals, dtype=np.float64), arms.arm[fitted])
        return with_q(shares_table(found, [self.groups[k] for k in terminal.tolist()]))

    def _of(self, arms: Arms, unit: Unit, number: NDArray[np.int64]) -> tuple[Floats, int]:
        """Share of the first cells of a unit that each fate has, and how many cells these are."""
        rows = arms.rows(unit)
        key = rows.tobytes(), number.tobytes()
        if key not in self.done:
            self.done[key] = first_fates(
                self.stored, arms.course(unit), number[self.codes[rows]], int(number.max()) + 1, self.n_neighbors,
                self.bandwidth, self.rng,
            )  # fmt: skip
        return self.done[key]


def _remark_on_replicates(cells: Cells) -> None:
    cells.remark_on_replicates()
    if cells.replicate is None:
        logger.warning(
            "without replicate_key nothing tells what another experiment would give: there are no p values or intervals"
        )


def _check_conditions(stored: Stored, condition_key: Columns) -> None:
    if columns_of(condition_key) != stored.recipe.condition_keys:
        raise InputError(
            f"condition_key={condition_key!r} is not that of the fit, which has {stored.recipe.condition_key!r}; name "
            "the same columns, or fit again: tw.tl.fit(adata, time_key, condition_key=...)."
        )


def _reference(adata: AnnData, condition_key: Columns, cells: Cells, reference: str | None) -> int:
    """Number of the arm that others are compared with."""
    there = [name for name in arms_of(adata, condition_key) if name in cells.conditions]
    if len(there) < 2:
        raise InputError(f"two conditions at least must have cells, found {there}.")
    if reference is not None and reference not in there:
        raise InputError(f"reference={reference!r} is none of the conditions {there}.")
    return cells.conditions.index(there[0] if reference is None else reference)


def _expression(adata: AnnData, layer: str | None, genes: bool | None, cells: Cells) -> Callable[[Rows], Any] | None:
    """Reads the expression of some cells of the course, as it lies there; None where genes are not tested."""
    if genes is False or (genes is None and layer is None and (adata.X is None or not adata.n_vars)):
        return None
    matrix = expression_matrix(adata, layer)
    try:
        check_logged(matrix)
    except InputError as error:
        if genes or layer is not None:
            raise
        logger.warning("genes are not tested: %s", error)
        return None

    def values(rows: Rows) -> Any:
        return matrix[cells.sources[rows]]

    return values


def _remark(arms: Arms, found: dict[str, list[pd.DataFrame]], since: float) -> None:
    """What was found, in a sentence."""
    fates, names = found["fates"][-1], arms.cells.conditions
    shifted = fates[fates["q"] <= LEVEL]
    if fates["p"].isna().all() and np.isnan(since):
        logger.info("%r against %r: nothing could be tested", names[arms.other], names[arms.reference])
        return
    says = [f"{row.group} {row.share_reference:.0%} to {row.share:.0%}" for row in shifted.itertuples()]
    logger.info(
        "%r against %r: %s; %s", names[arms.other], names[arms.reference],
        f"fates shift ({', '.join(says)})" if says else "no fate shifts",
        f"they part at time {since:g}" if np.isfinite(since) else "at no time do they differ",
    )  # fmt: skip
