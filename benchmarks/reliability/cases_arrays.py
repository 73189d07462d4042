"""Cases 8 to 12: the representation, in every layout and type it comes in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from benchmarks.reliability.common import QUICK, Case, Result, both, course, fitted_times, refusal

import thalweg as tw

Array = np.ndarray[Any, Any]


def fewer_than_a_batch() -> Result:
    adata = course(n=12)
    tw.tl.fit(adata, "time", rng=0, config=tw.tl.FitConfig(max_steps=50, batch_size=256, width=8, depth=1))
    out = tw.tl.interpolate(adata, 2.0).obsm["X_pca"]
    return bool(np.isfinite(out).all()), "12 cells a time, batches of 256: pairs are drawn with replacement"


def not_finite() -> Result:
    def holding(value: float) -> Result:
        adata = course()
        adata.obsm["X_pca"][7, 2] = value
        return refusal(lambda: fitted_times(adata), "1 NaN or infinite", "'cell7'", "column 2")

    return both(holding(np.nan), holding(np.inf))


def missing_key() -> Result:
    return refusal(lambda: fitted_times(course(), use_rep="X_umap"), "use_rep='X_umap'", "'X_pca'")


def predicted(adata: AnnData) -> Array:
    out = tw.tl.fit(adata, "time", use_rep="X", rng=0, config=QUICK, copy=True)
    return np.asarray(tw.tl.interpolate(out, 2.0).obsm["X"], dtype=np.float64)


def _with_x(x: Any) -> AnnData:
    return AnnData(x, obs=course().obs)


def _dask(x: Array) -> AnnData:
    import dask.array as da

    return _with_x(da.from_array(x, chunks=(17, 3)))


def _read_only(x: Array) -> AnnData:
    x = x.copy()
    x.flags.writeable = False
    return _with_x(x)


def _view(x: Array) -> AnnData:
    twice = anndata.concat([_with_x(x), _with_x(x)], index_unique="-")
    return twice[: len(x)]


def layouts() -> Result:
    x = course().obsm["X_pca"]
    makers: dict[str, Callable[[Array], AnnData]] = {
        "csr": lambda v: _with_x(sp.csr_matrix(v)),
        "csc": lambda v: _with_x(sp.csc_matrix(v)),
        "csr_array": lambda v: _with_x(sp.csr_array(v)),
        "dask": _dask,
        "view": _view,
        "fortran": lambda v: _with_x(np.asfortranarray(v)),
        "read-only": _read_only,
    }
    reference, worst, absent = predicted(_with_x(x)), 0.0, []
    for name, make in makers.items():
        try:
            worst = max(worst, float(np.abs(predicted(make(x)) - reference).max()))
        except ImportError:
            absent.append(name)
    with tempfile.TemporaryDirectory() as folder:
        for x_on_disk in (x, sp.csr_matrix(x)):
            path = Path(folder) / f"{type(x_on_disk).__name__}.h5ad"
            _with_x(x_on_disk).write_h5ad(path)
            backed = anndata.read_h5ad(path, backed="r")
            worst = max(worst, float(np.abs(predicted(backed) - reference).max()))
            backed.file.close()
    note = f"; not installed: {', '.join(absent)}" if absent else ""
    return worst <= 1e-6, f"{len(makers) + 2 - len(absent)} layouts, largest difference {worst:.1e}{note}"


def types() -> Result:
    whole = np.random.default_rng(0).integers(0, 256, (90, 3))
    reference = predicted(_with_x(whole.astype(np.float64)))
    kinds = ("uint8", "int16", "int64", "float16", "float32")
    worst = max(float(np.abs(predicted(_with_x(whole.astype(k))) - reference).max()) for k in kinds)
    return worst <= 1e-6, f"{', '.join(kinds)}: largest difference {worst:.1e}"


CASES: dict[int, tuple[str, Case]] = {
    8: ("fewer cells than the batch", fewer_than_a_batch),
    9: ("NaN or inf in the representation", not_finite),
    10: ("missing obsm key", missing_key),
    11: ("csr, csc, dask, view, backed, ...", layouts),
    12: ("int, uint8, float16, float64", types),
}
