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

from thalweg.data.representation import find_representation
from thalweg.data.transitions import read_transitions
from thalweg.errors import InputError, MissingKeyError
from thalweg.get._transitions import couplings

if TYPE_CHECKING:
    from anndata import AnnData


def cellrank_kernel(
    adata: AnnData,
    kind: Literal["realtime", "velocity", "transition"] = "realtime",
    *,
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
        cells; those of the last time stay where they are.
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
        If CellRank is not installed, ``kind`` is unknown, or a cell before the last time is not coupled.
    MissingKeyError
        If couplings, velocities or neighbours do not exist.
    """
    if kind not in ("realtime", "velocity", "transition"):
        raise InputError(f"kind must be 'realtime', 'velocity' or 'transition', found {kind!r}.")
    kernels = _import()
    if kind == "realtime":
        return _realtime(kernels, adata, key or "transition")
    if kind == "velocity":
        return _velocity(kernels, adata, key, use_rep)
    return _precomputed(kernels, adata, key or "transition")


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
                "uniform; leave them out, or use tw.tl.transition(adata, kind='flow')."
            )
    return {pair: found[pair] for pair in pairs}


def _shallow(adata: AnnData) -> AnnData:
    """An AnnData of its own on the same arrays, for CellRank to write into."""
    import anndata

    return anndata.AnnData(
        adata.X,
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


def _precomputed(kernels: Any, adata: AnnData, key: str) -> Any:
    transitions = read_transitions(adata, key)
    stays = transitions.rows(float(transitions.time.max()))
    rows, cols, data = [stays], [stays], [np.ones(len(stays))]
    for (t0, t1), block in _neighbouring(adata, key).items():
        entries = block.tocoo()
        rows.append(transitions.rows(t0)[entries.row])
        cols.append(transitions.rows(t1)[entries.col])
        data.append(entries.data)
    index = (np.concatenate(rows), np.concatenate(cols))
    matrix = sparse.csr_matrix((np.concatenate(data), index), shape=(adata.n_obs, adata.n_obs))
    return kernels.PrecomputedKernel(matrix, adata=_shallow(adata))
