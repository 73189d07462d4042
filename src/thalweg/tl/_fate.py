"""`tl.fate`: the terminal groups that each cell may end in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.core.neighbours import check_neighbours
from thalweg.data.cells import Cells, Rows
from thalweg.data.entries import find_fit
from thalweg.data.times import obs_column
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.ensemble import members
from thalweg.flows.running import Integrator, check_samples
from thalweg.flows.store import Stored, load_fit
from thalweg.tl._fates.absorbing import Numbers, check_free, holding
from thalweg.tl._fates.deaths import died
from thalweg.tl._fates.futures import Fates, Found, over_models, with_draws
from thalweg.tl._fates.plans import PlanFates
from thalweg.tl._fates.writing import write_fates
from thalweg.tl._stored.reading import cells_of

if TYPE_CHECKING:
    from anndata import AnnData

DIED = "died"
"""Column of cells that leave no descendants."""

_NO_NAMES = {"unknown", "undefined", "unassigned", "unlabelled", "unlabeled", "nan", "na", "none", "other", "others"}


def fate(
    adata: AnnData,
    groupby: str,
    *,
    key: str = "thalweg",
    kind: Literal["plan", "flow"] | None = None,
    terminal: Sequence[str] | None = None,
    absorbing: bool | Sequence[str] = False,
    include_died: bool = False,
    condition: str | None = None,
    n_samples: int = 20,
    n_neighbors: int = 15,
    bandwidth: float | None = None,
    stochastic: bool | float | None = None,
    n_steps: int = 25,
    n_draws: int | None = None,
    replicate_key: str | None = None,
    key_added: str | None = None,
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    r"""Probability that each cell ends in each terminal group.

    Fits of ``"usb"`` follow the entropic plans of their bridges from day to day (``kind="plan"``): a cell's fate is the
    mean over what it becomes at the next time, and so on to the last one. No network takes part. Plans that are
    balanced and plans that let proportions change by growth are averaged, and the standard error tells how far they
    agree. Growth itself weighs only if the fit had a ``growth_key``.

    Other fits simulate every cell forward to the last observed time of its condition (``kind="flow"``). Each end
    belongs to the groups of the real cells nearest to it, by a Gaussian kernel, and the fate of a cell is the mean over
    its futures ``s``, each with its growth :math:`g_s` on the way:

    .. math:: p_i(k) = \sum_s \omega_s \, q_s(k), \qquad \omega_s = g_s c_s / \textstyle\sum_s g_s c_s,

    with :math:`q_s(k)` the share of the kernel on the cells of group ``k``. With a score (``"usb"``, ``"sf2m"``,
    ``"eam"``) the futures are ``n_samples`` of the SDE, :math:`c_s = 1`. An ODE has one future for each cell, but no
    cell is known that precisely: the futures are those of the cell's ``n_neighbors`` nearest cells of its time and
    condition, itself among them, with the kernel as :math:`c_s`. All of them are used, so that this is exact and needs
    no seed.

    Parameters
    ----------
    adata
        AnnData with a fit.
    groupby
        Column of ``obs`` with the groups, such as cell types. Only those at the last time matter, and ``absorbing``
        ones.
    key
        Key of ``uns`` with the fit.
    kind
        ``"plan"`` or ``"flow"``, see above. By default the plans for ``"usb"``, unless ``stochastic`` is given.
    terminal
        Groups to end in; by default all groups present at the last time. The probabilities are then those of a cell
        that ends in one of them.
    absorbing
        Groups that hold cells wherever they occur, such as a state that dies out, or one that was sampled early only.
        A cell of such a group has that fate for certain at any time, and cells before it that become one end there;
        with ``kind="flow"`` each future is looked up at every observed time, and the share of the kernel on absorbing
        cells ends there. Descendants count as they enter the group. True takes all groups of ``terminal``; without it
        all groups of ``groupby``, as after `terminal_states`. By default none.
    include_died
        Add the column ``"died"``: the probability that the lineage of a cell ends before the last time, because its
        state vanishes, or by the rates of a fit with ``death_key``. The other columns are then the probabilities that
        it survives and ends in the group. Its standard error is not known, and stands as 0.
    condition
        For cells of a shared baseline: the condition whose fates they get; by default the mean over all conditions.
    n_samples, n_steps
        Futures of each cell, and steps of each in an interval, under the SDE.
    n_neighbors
        Real cells that an end is shared among; without an SDE also the neighbours whose futures are shared.
    bandwidth
        Of the kernels, in units of the representation; by default half the distance from a cell to its
        ``n_neighbors``-th nearest, the median over the cells of the time.
    stochastic
        Run the SDE: True, a number that scales its noise (see `interpolate`), or False for the ODE. By default the SDE
        where the method has a score.
    n_draws
        Draws of the cells (Bayesian bootstrap, Rubin 1981) from which the plans are made again, for ``kind="plan"``:
        how far fates depend on the cells that happened to be measured. Eight are enough for intervals; each takes as
        long as the fates themselves. By default as many as the fit has models with ``resample=True``, else none. For
        ``kind="flow"`` the models of the fit are the draws.
    replicate_key
        Column of ``obs`` with the replicate of each cell: the draws weigh whole replicates, so that they tell how far
        other replicates would have other fates. For ``kind="plan"`` with draws; models of the fit have replicates from
        ``replicate_key`` of `fit`.
    key_added
        Key to write; ``"fate_<groupby>"`` by default.
    rng, random_state
        Seed of the SDE's noise.
    device
        Where to integrate.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obsm[key_added]`` : DataFrame, float64
        A column for each terminal group; the rows sum to one. A cell of the last time that belongs to a terminal group
        has that fate for certain, as has a cell of an absorbing group at any time.
    ``adata.obs[key_added]`` : category
        The most probable group, with the colours of ``groupby`` in ``uns``.
    ``adata.obs[key_added + "_confidence"]`` : float
        One minus the entropy of the probabilities over that of equal ones: 1 is certain, 0 undecided.
    ``adata.obsm[key_added + "_se"]`` : DataFrame, float64
        Standard errors of the probabilities: from the scatter of the futures, from how far plans agree, and from the
        draws of the cells or the models of a fit with ``n_models``. `thalweg.get.fate_df` has the intervals.
    ``adata.obs[key_added + "_se"]`` : float
        That of the most probable group.
    ``adata.obsm[key_added + "_draws"]`` : DataFrame, float32, columns ``"<group>:<draw>"``
        The fates by each draw of the cells or each model, where there are several. `gene_trends` and `drivers` widen
        their intervals by them.
    ``adata.uns[key_added]`` : dict
        What was done.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key`` or no column ``groupby``.
    InputError
        If a group of ``terminal`` has no cell at the last time and is not absorbing, an absorbing one has no cell, no
        group is there, a name holds ``"/"`` (files cannot hold it), or an option cannot be used.
    """
    generator, stored = resolve_rng(rng, random_state), load_fit(find_fit(adata, key), key, device)
    check_neighbours(n_neighbors, bandwidth)
    check_samples(n_samples)
    along_plans = _along_plans(kind, stored, stochastic)
    n = _number_of_draws(n_draws, replicate_key, along_plans, stored)
    cells, noise = _cells(adata, stored, replicate_key), make_noise(stored.process, stochastic, generator)
    column = obs_column(adata, groupby, "groupby")
    groups, held = _groups(column, cells, terminal, absorbing, groupby)
    codes = pd.Categorical(column.astype(str).where(column.notna()), categories=groups).codes.astype(np.int64)
    n_futures, arm = n_samples if noise and not along_plans else 1, _arm(cells, condition)
    ends = codes[cells.sources], len(groups), n_neighbors, bandwidth, held
    if along_plans:
        found = with_draws(lambda c: PlanFates(stored.process, c, *ends, stored.counted)(), cells, n, generator)
    else:
        course = cells if stored.counted else replace(cells, rates=None, lost=None, arrived=None)
        carriers = [Carrier(flow, course, noise, Integrator(n_steps=n_steps)) for flow in members(stored.process)]
        found = over_models([Fates(c, n_futures, *ends)() for c in carriers])
    if include_died:
        found, groups = _with_died(found, groups, Carrier(stored.process, cells), ends[0], *ends[2:])
    name, out = key_added or f"fate_{groupby}", writable(adata, copy)
    write_fates(out, name, found.merged(cells, arm), groups)
    out.uns[name] = {
        "key": key,
        "method": stored.method.name,
        "groupby": groupby,
        "absorbing": np.array([groups[k] for k in held], dtype=object),
        "time_key": stored.recipe.time_key,
        "kind": "plan" if along_plans else "flow",
        "stochastic": noise.strength if noise and not along_plans else 0.0,
        "n_samples": n_futures,
        "n_draws": 0 if found.draws is None else found.draws.shape[1],
        "n_neighbors": n_neighbors,
        "bandwidth": found.bandwidth,
    }
    _carry_colors(out, column, groupby, name, groups)
    logger.info("added obsm[%r], obs[%r]: fates among %s", name, name, ", ".join(groups))
    return out if copy else None


def _cells(adata: AnnData, stored: Stored, replicate_key: str | None) -> Cells:
    """The cells of the fit, with replicates where they are named."""
    cells = stored.alive(cells_of(adata, stored, replace(stored.recipe, replicate_key=replicate_key)))
    cells.remark_on_replicates()
    return cells


def _arm(cells: Cells, condition: str | None) -> int | None:
    """Number of a condition."""
    if condition is None:
        return None
    if condition not in cells.conditions:
        raise InputError(f"condition={condition!r} is none of the fit; its conditions: {list(cells.conditions)}.")
    return cells.conditions.index(condition)


def _number_of_draws(n_draws: int | None, replicate_key: str | None, along_plans: bool, stored: Stored) -> int:
    """Draws of the cells for plans; none for fates of another kind."""
    if n_draws is not None and (isinstance(n_draws, bool) or not isinstance(n_draws, int | np.integer) or n_draws < 0):
        raise InputError(f"n_draws must be a whole number of draws, 0 or more, found {n_draws!r}.")
    if n_draws and not along_plans:
        raise InputError(
            f"n_draws={n_draws} draws cells for plans (kind='plan', the default of 'usb'); fates of kind='flow' "
            "have the models of the fit as draws: tw.tl.fit(n_models=5, resample=True)."
        )
    n = n_draws or (len(members(stored.flow)) if n_draws is None and stored.resampled and along_plans else 0)
    if replicate_key is not None and not n:
        raise InputError(
            f"replicate_key={replicate_key!r} needs draws of the plans (kind='plan', n_draws=20, say). Fates of "
            "kind='flow' have the models of tw.tl.fit(n_models=5, resample=True, replicate_key=...)."
        )
    return n


def _along_plans(kind: str | None, stored: Stored, stochastic: bool | float | None) -> bool:
    _check_kind(kind, stored)
    return kind == "plan" or (kind is None and stored.method.bridged and stochastic is None)


def _check_kind(kind: str | None, stored: Stored) -> None:
    if kind not in (None, "plan", "flow"):
        raise InputError(f"kind must be 'plan', 'flow' or None, found {kind!r}.")
    if kind == "plan" and not stored.method.bridged:
        raise InputError(
            f"kind='plan' needs method='usb' or FitConfig(score='learned'), found {stored.method.name!r}; "
            "use kind='flow'."
        )


def _groups(
    column: pd.Series,
    cells: Cells,
    terminal: Sequence[str] | None,
    absorbing: bool | Sequence[str],
    groupby: str,
) -> tuple[list[str], Numbers]:
    """Names of the groups to end in, in the order of the categories; numbers of those that hold cells at any time."""
    last = np.zeros(len(cells.time), dtype=bool)
    for condition in cells.strata:
        last[cells.rows(float(cells.times_of(condition)[-1]), condition)] = True
    there, found = column.iloc[cells.sources[last]].dropna(), column.dropna()
    ordered = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else sorted(found.unique())
    known = [str(g) for g in ordered if (found == g).any()]
    present = [str(g) for g in ordered if (there == g).any()]
    held = holding(absorbing, terminal, known, groupby)
    check_free(column, held, groupby)
    absent = sorted(set(map(str, terminal or ())) - {*present, *held})
    if absent or not (present or held):
        earlier = [g for g in absent if g in known]
        raise InputError(
            f"terminal={absent} have no cells at the last time; groups of obs[{groupby!r}] there: {present}."
            + (f" A group of earlier times has to hold its cells: absorbing={earlier}." if earlier else "")
        )
    chosen = [g for g in known if g in held or (g in present if terminal is None else g in set(map(str, terminal)))]
    unknown = [g for g in chosen if g.strip().lower() in _NO_NAMES]
    if unknown:
        logger.warning(
            "the terminal groups %s of obs[%r] name no fate; cells that end there count as if it were one. Leave them "
            "out: terminal=%s", unknown, groupby, [g for g in chosen if g not in unknown],
        )  # fmt: skip
    slashed = [g for g in chosen if "/" in g]
    if slashed:
        raise InputError(
            f"obs[{groupby!r}] has the groups {slashed}: a column named with '/' cannot be saved to h5ad or zarr; "
            f"rename them first, adata.obs[{groupby!r}] = adata.obs[{groupby!r}].cat.rename_categories(...)."
        )
    return chosen, tuple(map(chosen.index, held))


def _with_died(
    found: Found,
    groups: list[str],
    carrier: Carrier,
    codes: Rows,
    n_neighbors: int,
    bandwidth: float | None,
    held: Numbers,
) -> tuple[Found, list[str]]:
    """Fates with a last column for cells that leave no descendants."""
    if carrier.cells.lost is None and carrier.cells.deaths is None:
        raise InputError(
            "include_died=True needs a fit that knows of deaths: method 'usb', 'uotcfm' or 'uam', or a death_key."
        )
    if DIED in groups:
        raise InputError(f"a terminal group is named {DIED!r}, as the column that include_died=True adds; rename it.")
    ends = died(carrier, n_neighbors, bandwidth, np.isin(codes, held))[:, None]
    p = np.concatenate([found.p * (1 - ends), ends], 1)
    error = np.concatenate([found.error * (1 - ends), np.zeros_like(ends)], 1)
    draws = found.draws
    if draws is not None:
        died_in = np.broadcast_to(ends[:, None], (*draws.shape[:2], 1))
        draws = np.concatenate([draws * (1 - died_in), died_in], 2)
    return Found(p, error, found.bandwidth, draws), [*groups, DIED]


def _carry_colors(adata: AnnData, column: pd.Series, groupby: str, name: str, groups: list[str]) -> None:
    """Give each fate the colour of its group, if ``groupby`` has colours."""
    adata.uns.pop(f"{name}_colors", None)
    colors = adata.uns.get(f"{groupby}_colors")
    if colors is None or not isinstance(column.dtype, pd.CategoricalDtype) or len(colors) < len(column.cat.categories):
        return
    by_group = {DIED: "#b3b3b3"} | dict(zip(map(str, column.cat.categories), map(str, colors), strict=False))
    adata.uns[f"{name}_colors"] = np.array([by_group[g] for g in groups])
