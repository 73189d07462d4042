"""`tl.map_query`: a stored fit on new cells."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.core.neighbours import check_neighbours
from thalweg.data.cells import Cells, Floats, read_cells
from thalweg.data.entries import find_fit
from thalweg.data.fates import read_draws, read_fates
from thalweg.data.recipe import Recipe
from thalweg.data.writing import writable
from thalweg.errors import InputError, MissingKeyError
from thalweg.flows.query import Placed, held_cells, p_inside
from thalweg.flows.store import Stored, fit_checksum, load_fit
from thalweg.tl._fates.futures import Found
from thalweg.tl._fates.transfer import transfer
from thalweg.tl._fates.writing import write_fates
from thalweg.tl._genes.gene_map import GeneMap
from thalweg.tl._genes.onto import coordinates_of, placed_on, why_elsewhere
from thalweg.tl._velocity import velocity

if TYPE_CHECKING:
    from anndata import AnnData

Outside = Literal["refuse", "nan", "keep"]
MOST = 0.2
"""Share of new cells outside from which ``outside="refuse"`` refuses."""
_GROWTH = ("growth_rate", "growth_rate_sd")


def map_query(
    adata: AnnData,
    reference: AnnData,
    *,
    key: str = "thalweg",
    fate: str | None = None,
    project: bool = True,
    layer: str | None = None,
    outside: Outside = "refuse",
    alpha: float = 0.05,
    n_neighbors: int = 15,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    """Velocities and fates of new cells by a fit of other cells, without fitting again.

    The new cells are placed in the representation of the fit by the loadings of its PCA, so they must be normalised as
    the reference was. Then each is compared with the reference cells of its time and condition. A cell that lies where
    none of them do is outside, and nothing is said of it.

    Whether a cell lies outside is told by a conformal p value (Vovk et al. 2005; `thalweg.core.conformal`). Half of the
    reference cells of each time are held back, a thousand at most. A PCA of the others places all cells anew. Two
    distances count: that to the ``n_neighbors``-th nearest reference cell, relative to how far apart these are, and
    that from the plane of the PCA, by which cells of types that it has never seen are found. Of new cells that come
    from the population of the reference, a share of at most ``alpha`` is called outside, on average and whatever that
    population is. Cells of a rare type are called so more often.

    Fates are the mean over the ``n_neighbors`` nearest reference cells of the same time and condition, by the kernel of
    `thalweg.core.neighbours`. Between two times of the fit they are the mean over both, by how near each is.

    Afterwards the fit lies in ``adata``, too. `velocity` (with ``basis`` or ``genes``), `trajectories`,
    `log_likelihood`, `interpolate` and `transition` run on the new cells. The last two start from the new cells of a
    time, so there must be some. They make no difference between cells inside and outside; keep the former with
    ``adata[~adata.obs["outside"]].copy()``. `fate` follows the new cells alone and needs some of the last time, with
    names for the groups; to transfer fates, use ``fate`` here.

    Parameters
    ----------
    adata
        New cells, with the columns of ``obs`` that the fit reads: time, and conditions, weights and rates if it has
        them.
    reference
        The AnnData that was fitted, with its fit, its coordinates and its expression.
    key
        Key of ``reference.uns`` with the fit; the key that is written to ``adata.uns``, too.
    fate
        The ``groupby`` of `fate` on the reference, whose fates the new cells get; none by default.
    project
        Place the new cells by the loadings. Genes are matched by name. A few may be absent if that moves the
        reference's own cells by no more than a tenth of their spread; a warning names them. With False the cells have
        coordinates in ``adata.obsm[use_rep]`` already, made as those of the fit (Harmony, scVI); they are judged by
        these coordinates alone.
    layer
        Layer of both that the PCA was made of; by default the one named by ``reference.uns["pca"]``, else ``X``.
    outside
        ``"refuse"``: an error if more than a fifth of the new cells lie outside, or their expression is not processed
        as that of the reference (counts, another total, not scaled); fewer outside get NaN and a warning.
        ``"nan"``: NaN for cells outside, however many. ``"keep"``: values for all cells, for a look at what the fit
        makes of them.
    alpha
        Share of cells like those of the reference that may be called outside. A population needs ``4 / alpha`` cells;
        with many more of them, a smaller one leaves out fewer.
    n_neighbors
        Reference cells by which new cells are judged, and over which fates are averaged.
    device
        Where to evaluate.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obsm[use_rep]`` : array, float32, shape ``(n_cells, n_dims)``
        Coordinates, as many as the fit uses. Coordinates that are there and agree with the projection stay as they are.
    ``adata.obs["outside"]`` : bool
        Whether the cell lies outside, ``outside_p <= alpha``.
    ``adata.obs["outside_p"]`` : float
        Its p value; for cells between two times the larger of those by the times around.
    ``adata.obsm["velocity_<use_rep>"]`` and what else `velocity` writes
        NaN for cells outside. Growth rates are known at the times of the fit only, and NaN between them.
    ``adata.obsm["fate_<fate>"]``, ``adata.obs["fate_<fate>"]`` and what else `fate` writes
        With ``fate``. NaN for cells outside.
    ``adata.uns[key]`` : dict
        The fit.
    ``adata.uns["map_query"]`` : dict
        What was done, with the number of cells outside.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``, no fates, or a column or layer that the fit reads is absent.
    InputError
        If the reference has other coordinates than when it was fitted, or ones that its loadings do not give; if
        ``adata`` has coordinates that the projection does not give, or another fit under ``key``; if genes are absent
        that matter, or repeat; if expression holds NaN; if a time or condition is unknown to the fit; if a population
        is too small for ``alpha``; for what ``outside="refuse"`` refuses.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.simulated(rng=0)
    >>> tw.tl.fit(adata, "time", rng=0)
    >>> tw.tl.fate(adata, "branch")
    >>> new = tw.datasets.simulated(500, rng=0)
    >>> del new.obsm["X_pca"]
    >>> tw.tl.map_query(new, adata, fate="branch")
    """
    _check_options(outside, alpha, n_neighbors)
    entry = find_fit(reference, key)
    stored = load_fit(entry, key, device)
    known = _known_cells(reference, stored, key)
    _check_free(adata, entry, key)
    fates = None if fate is None else _read_fates(reference, fate)
    x, genes = coordinates_of(adata, reference, stored.recipe, project, layer)
    work = _working_copy(adata, stored.recipe, x)  # so that an error leaves adata as it was
    new = read_cells(work, stored.recipe)
    p = new.merged(p_inside(new, known, alpha, n_neighbors, _placed(adata, reference, genes, new, known)))
    far, first = p <= alpha, new.take(np.arange(adata.n_obs))  # each cell once, also where it is in several conditions
    if outside == "refuse":
        _refuse(far, first, alpha, "" if genes is None else why_elsewhere(adata, reference, genes))
    unsaid = np.zeros_like(far) if outside == "keep" else far
    work.obs["outside"], work.obs["outside_p"] = far, p
    work.uns[key] = {name: deepcopy(value) for name, value in entry.items() if name != "seen"}  # not these cells
    work.uns["map_query"] = {"key": key, "project": project, "outside": outside, "alpha": alpha} | {
        "n_outside": int(far.sum()), "n_neighbors": n_neighbors, "fate": fate or "",
    }  # fmt: skip
    velocity(work, key=key, device=device)
    _blank_velocities(work, stored, first, unsaid)
    if fates is not None:
        found = transfer(new, known, fates[1].of(known), n_neighbors).merged(new, None)
        _write_fates(work, reference, str(fate), fates[0], _blanked(found, unsaid))
    out = writable(adata, copy)
    _carry_over(work, out, new.use_rep)
    _remark_on(far, first, alpha, outside)
    return out if copy else None


def _check_options(outside: str, alpha: float, n_neighbors: int) -> None:
    check_neighbours(n_neighbors, None)
    if outside not in get_args(Outside):
        raise InputError(f"outside must be 'refuse', 'nan' or 'keep', found {outside!r}.")
    if isinstance(alpha, bool) or not isinstance(alpha, float) or not 0 < alpha < 1:
        raise InputError(f"alpha must be a share between 0 and 1, found {alpha!r}.")


def _known_cells(reference: AnnData, stored: Stored, key: str) -> Cells:
    """The cells of the fit; refused where they are others."""
    if reference.uns.get("map_query", {}).get("key") == key:
        raise InputError(
            f"the fit in reference.uns[{key!r}] was brought there by tw.tl.map_query; give the AnnData that was fitted."
        )
    known = read_cells(reference, stored.recipe)
    if stored.seen is not None:
        moved, there = stored.seen.moved(known.x[: reference.n_obs], reference.obs_names.to_numpy())
        if moved:
            raise InputError(
                f"{moved} of {there} reference cells that the fit remembers have other coordinates in {known.use_rep} "
                "now than when they were fitted, so new cells cannot be placed beside them. Bring the coordinates "
                "back, or fit again."
            )
    return known


def _check_free(adata: AnnData, entry: Mapping[str, Any], key: str) -> None:
    """Refuse to replace another fit."""
    if key in adata.uns and fit_checksum(find_fit(adata, key)) != fit_checksum(entry):
        raise InputError(
            f"adata.uns[{key!r}] holds a fit already, and another one than reference.uns[{key!r}]; remove it first: "
            f"del adata.uns[{key!r}]."
        )


def _placed(
    adata: AnnData, reference: AnnData, genes: GeneMap | None, new: Cells, known: Cells
) -> tuple[Placed, Placed] | None:
    """New and known cells of the courses on a plane of their genes."""
    if genes is None:
        return None
    held = known.merged(held_cells(known).astype(np.float64)) > 0.5
    if (found := placed_on(adata, reference, genes, held)) is None:
        return None
    return found[0].at(new.sources), found[1].at(known.sources)


def _read_fates(reference: AnnData, fate: str) -> tuple[list[str], Found]:
    """Groups, and the fates of the reference cells."""
    fates = read_fates(reference, fate)
    groups, errors = list(map(str, fates.columns)), reference.obsm.get(f"fate_{fate}_se")
    if errors is None:
        raise MissingKeyError(f"reference.obsm['fate_{fate}_se'] does not exist; run tw.tl.fate(reference, {fate!r}).")
    p, error = fates.to_numpy(), errors[groups].to_numpy(dtype=np.float64)
    return groups, Found(p, error, np.nan, read_draws(reference, fate, groups))


def _write_fates(work: AnnData, reference: AnnData, fate: str, groups: list[str], found: Found) -> None:
    name = f"fate_{fate}"
    write_fates(work, name, found, groups)
    work.uns[name] = {**reference.uns.get(name, {}), "kind": "query", "bandwidth": found.bandwidth}
    if f"{name}_colors" in reference.uns:
        work.uns[f"{name}_colors"] = np.array(reference.uns[f"{name}_colors"])
    logger.info("added obsm[%r], obs[%r]: fates of the reference cells around", name, name)


def _working_copy(adata: AnnData, recipe: Recipe, x: Floats | None) -> AnnData:
    """The new cells without their expression, in the representation of the fit."""
    import anndata

    rep = str(recipe.use_rep)
    placed = {} if x is None else {rep: x.astype(np.float32)}
    genes = {"X": adata.X, "var": pd.DataFrame(index=adata.var_names)} if rep == "X" else {}
    return anndata.AnnData(obs=adata.obs.copy(), obsm=dict(adata.obsm) | placed, **genes)


def _refuse(far: NDArray[np.bool_], new: Cells, alpha: float, why: str) -> None:
    """Refuse new cells that were processed otherwise, or lie elsewhere."""
    go_on = "To go on: outside='nan' leaves cells outside out, outside='keep' does not."
    if why:
        raise InputError(f"the new cells are not processed as the reference. {why} {go_on}")
    if far.mean() > MOST:
        raise InputError(
            f"{far.mean():.0%} of the new cells ({int(far.sum())} of {len(far)}) lie outside the cells that the fit "
            f"has seen, where {alpha:.0%} are expected of the same population and at most {MOST:.0%} are taken; by "
            f"time: {_by_time(far, new)}. Likely causes: another normalisation, a batch effect, another tissue, or a "
            f"wrong time. Against a batch effect, integrate both data sets and fit on that. {go_on}"
        )


def _by_time(far: NDArray[np.bool_], new: Cells) -> str:
    return ", ".join(f"{t:g}: {far[new.time == t].mean():.1%}" for t in new.times.tolist())


def _remark_on(far: NDArray[np.bool_], new: Cells, alpha: float, outside: str) -> None:
    """Say how many cells lie outside; nothing is dropped silently."""
    if far.any():
        logger.warning(
            "%d of %d new cells lie outside the cells that the fit has seen (%.0f expected at alpha=%g; by time: %s); "
            "%s, see obs['outside']", far.sum(), len(far), alpha * len(far), alpha, _by_time(far, new),
            "their values say little" if outside == "keep" else "they get NaN",
        )  # fmt: skip


def _blank_velocities(work: AnnData, stored: Stored, new: Cells, unsaid: NDArray[np.bool_]) -> None:
    """NaN for cells outside; for growth rates also between the times of the fit, where states are not known."""
    name = f"velocity_{new.use_rep}"
    for column in (name, f"{name}_sd"):
        if column in work.obsm:
            work.obsm[column][unsaid] = np.nan
    between = ~np.isin(new.time, stored.flow.axis.times)
    for column, rows in (("velocity_agreement", unsaid), *((one, unsaid | between) for one in _GROWTH)):
        if column in work.obs:
            work.obs.loc[rows, column] = np.nan


def _blanked(found: Found, unsaid: NDArray[np.bool_]) -> Found:
    """Fates with NaN for cells outside."""
    parts = (found.p, found.error) if found.draws is None else (found.p, found.error, found.draws)
    for part in parts:
        part[unsaid] = np.nan
    return found


def _carry_over(work: AnnData, out: AnnData, rep: str) -> None:
    """Everything that was found, into the new cells; what was there of an earlier fit goes as it did in the copy."""
    fresh = rep in work.obsm and rep not in out.obsm
    out.obs = work.obs
    for name in set(out.obsm) - set(work.obsm):
        del out.obsm[name]
    for name in work.obsm:
        if name != rep:
            out.obsm[name] = work.obsm[name]
    if fresh:
        out.obsm[rep] = work.obsm[rep]
        logger.info("added obsm[%r]: the new cells in the representation of the fit", rep)
    for name in work.uns:
        out.uns[name] = work.uns[name]
