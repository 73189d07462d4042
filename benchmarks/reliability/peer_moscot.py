"""Cases of moscot: time columns, AnnData, plans, files. It trains no network in these, and has no paths."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from benchmarks.reliability import peer_common as common

warnings.simplefilter("ignore")
from moscot.problems.time import TemporalProblem  # noqa: E402

Options = dict[str, Any]
SETTINGS: Options = {"joint_attr": "X_pca", "epsilon": 1e-2}


def prepared(adata: Any, **options: Any) -> Any:
    return TemporalProblem(adata).prepare(time_key="time", **({"joint_attr": SETTINGS["joint_attr"]} | options))


def solved(adata: Any, prepare: Options | None = None, **options: Any) -> Any:
    return prepared(adata, **(prepare or {})).solve(**({"epsilon": SETTINGS["epsilon"]} | options))


def plans(problem: Any) -> list[Any]:
    return [np.asarray(problem[key].solution.transport_matrix, dtype=np.float64) for key in problem.problems]


def intervals(adata: Any) -> list[tuple[Any, Any]]:
    return [tuple(key) for key in prepared(adata).problems]


def labels() -> common.Result:
    adata = common.course(["d0", "d10", "d2"])
    adata.obs["time"] = adata.obs["time"].astype("category")
    return common.refuses(lambda: intervals(adata))


def numeric_text() -> common.Result:
    adata = common.course(["0", "10", "2"])
    adata.obs["time"] = adata.obs["time"].astype("category")
    try:
        found = [tuple(map(float, key)) for key in intervals(adata)]
    except Exception as error:
        return True, f"{type(error).__name__}: {error}"[:160]
    return found == [(0, 2), (2, 10)], f"intervals {found}"


def missing() -> common.Result:
    adata = common.course([0.0, 1.0, 3.0])
    adata.obs.loc[["cell3", "cell7"], "time"] = np.nan
    handler = common.Logged()
    logging.getLogger().addHandler(handler)
    try:
        shapes = [p.shape for p in plans(solved(adata))]
    except Exception as error:
        return True, f"{type(error).__name__}: {error}"[:160]
    said = [line for line in handler.lines if "nan" in line.lower() or "missing" in line.lower()]
    return bool(said), f"plans of {shapes}; lines about it: {len(said)}"


def no_times() -> common.Result:
    return common.refuses_not_times(lambda times: intervals(common.course(times)))


def one_time() -> common.Result:
    refused = common.refuses(lambda: intervals(common.course([3.0])))
    adata = common.course([0, 1])
    adata.obs["time"] = adata.obs["time"].astype("category").cat.add_categories([5, 9])
    found = intervals(adata)
    return refused[0] and found == [(0, 1)], f"{refused[1]}; with unused categories: {found}"


def few_cells() -> common.Result:
    adata = common.course([0.0, 1.0, 3.0])[[0, *range(30, 90)]].copy()
    finite = all(np.isfinite(p).all() for p in plans(solved(adata)))
    return finite, f"one cell: plans finite: {finite}"


def not_finite() -> common.Result:
    def with_value(value: float) -> common.Result:
        adata = common.course([0.0, 1.0])
        adata.obsm["X_pca"][7, 2] = value
        return common.refuses(lambda: solved(adata), lambda p: f"converged {p[0.0, 1.0].solution.converged}")

    results = [with_value(v) for v in (np.nan, np.inf)]
    return all(r[0] for r in results), "; ".join(r[1] for r in results)


def missing_key() -> common.Result:
    return common.refuses(lambda: prepared(common.course([0, 1]), joint_attr="X_umap"))


def layouts() -> common.Result:
    adata = common.course([0.0, 1.0])
    reference, worst = plans(solved(adata))[0], 0.0
    kinds = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array, "fortran": np.asfortranarray}
    for name, make in kinds.items():
        other = adata.copy()
        other.X = make(other.X)
        try:
            found = plans(solved(other, {"joint_attr": {"attr": "X"}}))[0]
        except Exception as error:
            return False, f"{name}: {type(error).__name__}: {error}"[:160]
        worst = max(worst, float(np.abs(found - reference).max() / reference.max()))
    view = plans(solved(common.course([0.0, 1.0, 2.0])[:60]))[0]
    worst = max(worst, float(np.abs(view - reference).max() / reference.max()))
    return worst <= 1e-6, f"{len(kinds) + 1} layouts, largest difference {worst:.1e}"


def types() -> common.Result:
    adata = common.course([0.0, 1.0])
    whole = np.random.default_rng(0).integers(0, 256, adata.obsm["X_pca"].shape)
    adata.obsm["X_pca"] = whole.astype(np.float64)
    reference, worst = plans(solved(adata))[0], 0.0
    for kind in ("uint8", "int16", "int64", "float16", "float32"):
        adata.obsm["X_pca"] = whole.astype(kind)
        try:
            found = plans(solved(adata))[0]
        except Exception as error:
            return False, f"{kind}: {type(error).__name__}: {error}"[:160]
        worst = max(worst, float(np.abs(found - reference).sum()))
    return worst <= 2e-3, f"plans differ by up to {worst:.1e} of their mass"


def two(x: Any, y: Any) -> Any:
    adata = common.course([0.0, 1.0], n=len(x))
    adata.obsm["X_pca"] = np.concatenate([x, y])
    return adata


def shifted() -> common.Result:
    x, y = common.clouds()
    found = [solved(two(x + np.float32(s), y + np.float32(s))) for s in (0, 1e4)]
    near, far = (plans(p)[0] for p in found)
    share = float((near.argmax(1) == far.argmax(1)).mean())
    moved = ((x[:, None] - y[None]) ** 2).sum(-1)
    w2 = [float(np.sqrt((p * moved).sum())) for p in (near, far)]
    change = abs(w2[1] / w2[0] - 1)
    return share >= 0.99 and change <= 1e-4, f"{share:.1%} of pairs kept, W2 changes by {change:.1e}"


def scaled() -> common.Result:
    x, y = common.clouds()
    reference = plans(solved(two(x, y)))[0]
    worst = 0.0
    for s in (1e-4, 1e4):
        worst = max(worst, float(np.abs(plans(solved(two(x * np.float32(s), y * np.float32(s))))[0] - reference).sum()))
    handler = common.Logged()
    for name in ("", "moscot"):
        logging.getLogger(name).addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = solved(two(x, y), epsilon=1e-4, max_iterations=1)
    lines = [*handler.lines, *(str(w.message) for w in caught)]
    said = any("converge" in line.lower() for line in lines)
    figure = (
        f"plans differ by {worst:.1e}; not converged is said: {said} (converged={problem[0.0, 1.0].solution.converged})"
    )
    return worst <= 2e-3 and said, figure


def permuted() -> common.Result:
    x, y = common.clouds()
    order = np.random.default_rng(1).permutation(len(x))
    a, b = plans(solved(two(x, y)))[0], plans(solved(two(x[order], y)))[0]
    share = float((a[order].argmax(1) == b.argmax(1)).mean())
    return share >= 0.99, f"{share:.0%} of largest entries kept"


def identical() -> common.Result:
    x = np.full((30, 3), 7.0, dtype=np.float32)
    plan = plans(solved(two(x, x)))[0]
    finite = bool(np.isfinite(plan).all())
    return finite and abs(float(plan.sum()) - 1) < 1e-3, f"plan finite: {finite}"


def same_seed() -> common.Result:
    x, y = common.clouds()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b = (plans(solved(two(x, y)))[0] for _ in range(2))
    untouched = bool((before == np.random.get_state()[1]).all())  # noqa: NPY002
    return bool((a == b).all()) and untouched, f"equal to the bit: {bool((a == b).all())}; numpy untouched: {untouched}"


def hostile() -> common.Result:
    import cloudpickle

    return common.runs_code(TemporalProblem.load, lambda marker: cloudpickle.dumps(common.Payload(marker)))


CASES: dict[int, common.Case] = {
    1: labels,
    2: numeric_text,
    3: missing,
    4: no_times,
    6: one_time,
    7: few_cells,
    9: not_finite,
    10: missing_key,
    11: layouts,
    12: types,
    13: shifted,
    14: scaled,
    15: permuted,
    16: identical,
    20: same_seed,
    26: hostile,
}

if __name__ == "__main__":
    common.run("moscot", CASES, SETTINGS)
