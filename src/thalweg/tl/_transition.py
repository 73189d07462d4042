"""`tl.transition`: sparse couplings between observed times."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from thalweg._memory import check_memory
from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger, settings
from thalweg.core.neighbours import check_neighbours
from thalweg.data.cells import Cells, Floats
from thalweg.data.entries import find_fit
from thalweg.data.recipe import read_times
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.running import Integrator, check_samples
from thalweg.flows.store import fit_checksum, load_fit
from thalweg.tl._stored.reading import cells_of
from thalweg.tl._transitions.blocks import Block, FlowBlocks, plan_block

if TYPE_CHECKING:
    from anndata import AnnData

Pairs = list[tuple[float, float]]
_BYTES = 32  # of an entry while the matrix is put together


def transition(
    adata: AnnData,
    t0: float | None = None,
    t1: float | None = None,
    *,
    key: str = "thalweg",
    kind: Literal["flow", "plan"] = "flow",
    n_neighbors: int = 15,
    bandwidth: float | None = None,
    stochastic: bool | float | None = None,
    n_samples: int = 10,
    n_steps: int = 50,
    top_k: int = 50,
    max_memory: int | None = None,
    key_added: str = "transition",
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    """Couple the cells of observed times: the later cells that each cell becomes like.

    Every cell of ``t0`` is carried to ``t1`` by the fitted flow and shared among the real cells nearest to where it
    arrives, by a Gaussian kernel; with a score by several samples of the SDE. Cells of different conditions are never
    coupled. The matrix is built in blocks and is sparse throughout.

    Parameters
    ----------
    adata
        AnnData with a fit.
    t0, t1
        Observed times, ``t0`` before ``t1``. By default every pair of neighbouring times; one of them alone means its
        neighbour. What lies further apart follows along the times between, unless it is asked for here. A call that
        names a time adds to the pairs of earlier calls with the same options on the same fit.
    key
        Key of ``uns`` with the fit.
    kind
        ``"flow"``, or ``"plan"``: the optimal transport plan between the cells themselves, of the kind the method
        trains on (all but ``"icfm"``, ``"vpcfm"`` and ``"fm"``).
    n_neighbors
        Real cells that an arriving cell is shared among.
    bandwidth
        Of the kernel, in units of the representation; by default half the distance from a cell to its
        ``n_neighbors``-th nearest, the median over the cells of ``t1``.
    stochastic
        Run the SDE: True, a number that scales its noise (see `interpolate`), or False for the ODE. By default the SDE
        where the method has a score (``"sf2m"``, ``"eam"``).
    n_samples, n_steps
        Futures of each cell, and steps of each in an interval, under the SDE.
    top_k
        Entries kept of a row, the largest; what is left out is spread over them and reported. Not for plans.
    max_memory
        Bytes that the matrix may take; ``thalweg.settings.max_memory`` by default.
    key_added
        Key of ``obsp`` and ``uns`` to write.
    rng, random_state
        Seed of the SDE's noise.
    device
        Where to integrate.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obsp[key_added]`` : csr matrix, float32, shape ``(n_cells, n_cells)``
        In row ``i`` the probabilities of the later cells, times the growth of cell ``i`` relative to the mean of its
        time (1 without growth). Read it with `thalweg.get.couplings`; it may be subset and saved with the cells.
    ``adata.uns[key_added]`` : dict
        ``params``, and ``pairs`` (DataFrame): for each pair of times the numbers of cells, the bandwidth, the share of
        the mass ``dropped`` by ``top_k``, and the share of later cells that nothing arrives at, ``unreached``.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    InputError
        If a time was not observed, or an option cannot be used.
    MemoryBudgetError
        If the matrix would exceed ``max_memory``.
    """
    if kind not in ("flow", "plan"):
        raise InputError(f"kind must be 'flow' or 'plan', found {kind!r}.")
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, found {top_k!r}.")
    check_neighbours(n_neighbors, bandwidth)
    check_samples(n_samples)
    stored, generator = load_fit(find_fit(adata, key), key, device), resolve_rng(rng, random_state)
    cells, noise = stored.alive(cells_of(adata, stored)), make_noise(stored.process, stochastic, generator)
    pairs, n_futures = _pairs(cells.times, t0, t1, stored.recipe.time_key), n_samples if noise else 1
    if kind == "flow":
        rows, per_row = sum(len(cells.rows(start)) for start, _ in pairs), min(top_k, n_neighbors * n_futures)
        limit, fix = settings.max_memory if max_memory is None else max_memory, "lower top_k or n_neighbors"
        check_memory("the couplings", rows, per_row, _BYTES, limit, fix)
    _name_uncoupled(cells, pairs)
    carrier = Carrier(stored.process, cells, noise, Integrator(n_steps=n_steps))
    make = FlowBlocks(carrier, n_futures, n_neighbors, bandwidth, top_k)
    blocks = [make(*pair) if kind == "flow" else plan_block(stored, cells, *pair) for pair in pairs]
    blocks = [block.merged(cells) for block in blocks]
    params = {
        "key": key,
        "kind": kind,
        "n_neighbors": n_neighbors,
        "bandwidth": bandwidth or "measured",
        "stochastic": noise.strength if noise else 0.0,
        "n_samples": n_futures,
        "top_k": top_k,
        "fit": fit_checksum(find_fit(adata, key)),
    }
    out = writable(adata, copy)
    _write(
        out, key_added, blocks, read_times(adata, stored.recipe.entry()), params, add=t0 is not None or t1 is not None
    )
    out.uns[key_added] |= stored.recipe.entry()
    logger.info("added obsp[%r]: couplings of %d pairs of times", key_added, len(out.uns[key_added]["pairs"]))
    return out if copy else None


def _pairs(times: Floats, t0: float | None, t1: float | None, time_key: str) -> Pairs:
    """The pairs of times asked for."""
    known = times.tolist()
    for name, t in (("t0", t0), ("t1", t1)):
        if t is not None and t not in known:
            raise InputError(f"{name}={t!r} is not observed in obs[{time_key!r}]; times: {known}.")
    neighbours = list(pairwise(known))
    if t0 is not None and t1 is not None:
        if not t0 < t1:
            raise InputError(f"t0={t0:g} must be before t1={t1:g}; tw.tl.ancestors goes back along the same couplings.")
        return [(float(t0), float(t1))]
    found = [p for p in neighbours if t0 in (None, p[0]) and t1 in (None, p[1])]
    if not found:
        raise InputError(f"t0={t0}, t1={t1} has no neighbour to be coupled with in obs[{time_key!r}]; times: {known}.")
    return found


def _name_uncoupled(cells: Cells, pairs: Pairs) -> None:
    """Say which conditions have cells at the earlier time of a pair and none at the later one."""
    for t0, t1 in pairs:
        for condition in cells.strata:
            rows, following = cells.rows(t0, condition), cells.times_of(condition)
            if len(rows) and t1 not in following:
                later = following[following > t1]
                hint = f"; couple them with tw.tl.transition(adata, {t0:g}, {later[0]:g})" if len(later) else ""
                logger.warning(
                    "condition %r has no cells at time %g: its %d cells of time %g are not coupled with it%s",
                    cells.stratum_names[condition], t1, len(rows), t0, hint,
                )  # fmt: skip


def _write(
    adata: AnnData, key: str, blocks: list[Block], time: Floats, params: Mapping[str, Any], *, add: bool
) -> None:
    """Put the blocks into ``obsp`` and ``uns``, beside those of an earlier call where they belong together."""
    matrix = sum((b.matrix for b in blocks[1:]), start=blocks[0].matrix)
    table = pd.DataFrame([_row(block, time) for block in blocks])
    earlier = adata.uns.get(key)
    if add and key in adata.obsp and isinstance(earlier, Mapping) and dict(earlier.get("params", {})) == params:
        pairs = {(b.t0, b.t1) for b in blocks}
        old: pd.DataFrame = earlier["pairs"]
        old = old[[pair not in pairs for pair in zip(old["t0"], old["t1"], strict=True)]]
        matrix = matrix + _without(sparse.csr_matrix(adata.obsp[key]), time, pairs)
        table = pd.concat([old, table]).sort_values(["t0", "t1"], ignore_index=True)
    elif add and key in adata.obsp:
        logger.info("obsp[%r] was of another fit or other options; it is replaced", key)
    table.index = table.index.astype(str)
    adata.obsp[key] = sparse.csr_matrix(matrix, dtype=np.float32)
    adata.uns[key] = {"params": dict(params), "pairs": table}


def _without(matrix: sparse.csr_matrix, time: Floats, pairs: set[tuple[float, float]]) -> sparse.csr_matrix:
    entries = matrix.tocoo()
    again = np.zeros(entries.nnz, dtype=bool)
    for t0, t1 in pairs:
        again |= (time[entries.row] == t0) & (time[entries.col] == t1)
    kept = ~again
    return sparse.csr_matrix((entries.data[kept], (entries.row[kept], entries.col[kept])), shape=matrix.shape)


def _row(block: Block, time: Floats) -> dict[str, float]:
    cols = np.flatnonzero(time == block.t1)
    arriving = np.asarray(block.matrix.sum(0)).ravel()[cols]
    unreached = float((arriving == 0).mean())
    if block.dropped > 0.01:
        logger.info("time %g to %g: top_k left %.1f %% of the mass out", block.t0, block.t1, 100 * block.dropped)
    sizes = {"n0": int((time == block.t0).sum()), "n1": len(cols)}
    return {"t0": block.t0, "t1": block.t1, **sizes, "bandwidth": block.bandwidth, "dropped": block.dropped, "unreached": unreached}  # fmt: skip  # noqa: E501
