"""Kernels of CellRank from what thalweg wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from thalweg._settings import logger
from thalweg.data.markov import Chain, read_chain
from thalweg.data.representation import find_representation
from thalweg.data.times import obs_column
from thalweg.data.transitions import read_transitions
from thalweg.errors import InputError, MissingKeyError
from thalweg.get._colors import categories
from thalweg.get._transitions import couplings

if TYPE_CHECKING:
    from anndata import AnnData

DIED = "died"
"""Terminal state of cells that leave no descendants, as `thalweg.tl.fate` names them."""


def cellrank_kernel(
    adata: AnnData,
    kind: Literal["realtime", "velocity", "transition"] = "realtime",
    *,
    groupby: str | None = None,
    key: str | None = None,
    use_rep: str | None = None,
) -> Any:
    """A kernel of CellRank, ready for its estimators and plots.

    ``"realtime"`` and ``"velocity"`` are as CellRank makes them from its own constructors: call their
    ``compute_transition_matrix()``. ``"transition"`` already has its matrix.

    Parameters
    ----------
    adata
        Cells; not changed. CellRank gets a copy, because it rewrites the time column.
    kind
        ``"realtime"``: ``RealTimeKernel`` on the sparse couplings of `thalweg.tl.transition`. ``"velocity"``:
        ``VelocityKernel`` on the velocities of `thalweg.tl.velocity` in ``obsm``; it needs neighbours
        (``sc.pp.neighbors``). ``"transition"``: ``PrecomputedKernel`` on the same couplings as one matrix over all
        cells. A step leads from each cell to the next time of its condition. Cells of the last time of their condition
        stay where they are, and so do earlier cells that leave no descendants.
    groupby
        Column of ``obs`` with the groups to end in, such as cell types; for ``"transition"``. Absorption probabilities
        exist only if every cell that stays belongs to a terminal state. With ``groupby`` a cell of the last time
        without a group steps to the nearest one of its time and condition that has a group, and does not stay. The
        terminal states are ``kernel.adata.obs["terminal_<groupby>"]``: the group of each cell that stays, ``"died"``
        for a cell without descendants, and NaN for all others.
    key
        Key of the couplings (``"transition"``) or of the velocities (``"velocity_<use_rep>"``).
    use_rep
        Representation that the velocities belong to; by default the PCA that exists.

    Returns
    -------
    ``cellrank.kernels.RealTimeKernel``, ``VelocityKernel`` or ``PrecomputedKernel``.

    Raises
    ------
    InputError
        If CellRank is not installed, ``kind`` is unknown, neighbouring times of a condition are not coupled, a cell
        before the last time has no descendants (``"realtime"``, which cannot hold it), no cell of the last time of a
        condition has a group, or ``groupby`` is given with another kind.
    MissingKeyError
        If couplings, velocities, neighbours or the column ``groupby`` do not exist.
    """
    if kind not in ("realtime", "velocity", "transition"):
        raise InputError(f"kind must be 'realtime', 'velocity' or 'transition', found {kind!r}.")
    if groupby is not None and kind != "transition":
        raise InputError(f"groupby={groupby!r} belongs to kind='transition', found {kind!r}; give one or the other.")
    kernels = _import()
    if kind == "realtime":
        return _realtime(kernels, adata, key or "transition")
    if kind == "velocity":
        return _velocity(kernels, adata, key, use_rep)
    return _precomputed(kernels, adata, key or "transition", groupby)


def _import() -> Any:
    try:
        from cellrank import kernels  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise InputError(
            f"CellRank cannot be imported ({error}); install it with pip install 'thalweg[cellrank]'."
        ) from None
    return kernels


def _neighbouring(adata: AnnData, key: str) -> dict[tuple[float, float], sparse.csr_matrix]:
    """Couplings of neighbouring times: with more, a step would stand for different spans of time."""
    transitions = read_transitions(adata, key)
    found = couplings(adata, key=key)
    pairs = list(pairwise(np.unique(transitions.time).tolist()))
    absent = [pair for pair in pairs if pair not in found]
    if absent:
        raise InputError(
            f"obsp[{key!r}] has no couplings of the neighbouring times {absent}; run tw.tl.transition(adata)."
        )
    for t0, t1 in pairs:
        empty = int((np.diff(found[t0, t1].indptr) == 0).sum())
        if empty:
            raise InputError(
                f"{empty} cells of time {t0:g} are not coupled with time {t1:g}, which CellRank would take for "
                "uniform; leave them out, or use cellrank_kernel(adata, 'transition')."
            )
    return {pair: found[pair] for pair in pairs}


def _shallow(adata: AnnData) -> AnnData:
    """An AnnData of its own on the same arrays, for CellRank to write into; its estimators need an ``X``."""
    import anndata

    return anndata.AnnData(
        sparse.csr_matrix(adata.shape) if adata.X is None else adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        layers=dict(adata.layers),
        obsp=dict(adata.obsp),
    )


def _realtime(kernels: Any, adata: AnnData, key: str) -> Any:
    found = _neighbouring(adata, key)
    time_key, out = str(adata.uns[key]["time_key"]), _shallow(adata)
    out.obs[time_key] = pd.Categorical(read_transitions(adata, key).time, ordered=True)
    return kernels.RealTimeKernel(out, time_key=time_key, couplings=found)


def _velocity(kernels: Any, adata: AnnData, key: str | None, use_rep: str | None) -> Any:
    rep = find_representation(adata, use_rep)
    name = key or f"velocity_{rep}"
    for slot, needed, call in (("obsm", name, "tw.tl.velocity"), ("obsp", "connectivities", "sc.pp.neighbors")):
        if needed not in getattr(adata, slot):
            found = ", ".join(map(repr, getattr(adata, slot).keys())) or "none"
            raise MissingKeyError(f"adata.{slot}[{needed!r}] does not exist; it has {found}. Run {call}(adata) first.")
    out, columns = _shallow(adata), adata.obsm[name].shape[1]
    if columns < out.obsm[rep].shape[1]:  # CellRank wants as many coordinates as velocities
        out.obsm[f"{rep}_{columns}"] = out.obsm[rep][:, :columns]
        rep = f"{rep}_{columns}"
    with _older_numpy():
        return kernels.VelocityKernel(out, attr="obsm", xkey=rep, vkey=name)


@contextmanager
def _older_numpy() -> Iterator[None]:
    """Lend CellRank 2.0.7 the keywords of numpy.testing that its velocity kernel uses and numpy 2.4 took away."""
    original = np.testing.assert_array_equal
    if "x" in signature(original).parameters:
        yield
        return

    def by_old_names(x: Any, y: Any, err_msg: str = "") -> None:
        original(x, y, err_msg)

    testing: Any = np.testing
    testing.assert_array_equal = by_old_names
    try:
        yield
    finally:
        testing.assert_array_equal = original


def _precomputed(kernels: Any, adata: AnnData, key: str, groupby: str | None) -> Any:
    chain, out = read_chain(adata, key), _shallow(adata)
    if len(chain.died):
        logger.warning(
            "%d cells before the last time have no descendants in obsp[%r]; they stay where they are, and so need a "
            "terminal state (with groupby they have one, %r)", len(chain.died), key, DIED,
        )  # fmt: skip
    matrix = chain.matrix
    if groupby is not None:
        column = obs_column(adata, groupby, "groupby")
        matrix = chain.leading_to(column.notna().to_numpy(), f"obs[{groupby!r}]")
        out.obs[f"terminal_{groupby}"] = _terminal(chain, column)
    return kernels.PrecomputedKernel(matrix, adata=out)


def _terminal(chain: Chain, column: pd.Series) -> pd.Categorical:
    """The group of each last cell, ``"died"`` for cells without descendants, and NaN for the others."""
    last = np.zeros(len(column), dtype=bool)
    last[np.concatenate(list(chain.ends.values()))] = True
    groups = column.astype(str).where(column.notna() & last).to_numpy(dtype=object, copy=True)
    names = [name for name in categories(column) if name in set(groups)]
    if len(chain.died):
        if DIED in names:
            raise InputError(f"obs[{column.name!r}] has a group {DIED!r}, as cells without descendants are; rename it.")
        groups[chain.died], names = DIED, [*names, DIED]
    return pd.Categorical(groups, names)
