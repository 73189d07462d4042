"""Cases 1 to 7: the time column."""

from __future__ import annotations

import numpy as np
from benchmarks.reliability.common import QUICK, Case, Result, both, course, fitted_times, logged, refusal
from benchmarks.reliability.peer_common import not_times

import thalweg as tw


def labels() -> Result:
    adata = course(["d0", "d10", "d2"])
    refused = refusal(lambda: fitted_times(adata), "time_map={'d0': 0, 'd2': 2, 'd10': 10}")
    times = fitted_times(adata, time_map={"d0": 0, "d2": 2, "d10": 10})
    return both(refused, (times == [0, 2, 10], f"with the map offered: {times}"))


def numeric_text() -> Result:
    with logged() as lines:
        times = fitted_times(course(["0", "10", "2"]))
    said = [line for line in lines if "read as numbers: 0, 2, 10" in line]
    return times == [0, 2, 10] and bool(said), f"{times}, {len(said)} log line"


def missing() -> Result:
    adata = course([0.0, 1.0, 3.0])
    adata.obs.loc[["cell3", "cell7"], "time"] = np.nan
    refused = refusal(lambda: fitted_times(adata), "2 missing", "'cell3', 'cell7'", "drop")
    with logged() as lines:
        tw.pp.drop_missing(adata, "time")
    return both(refused, (adata.n_obs == 88 and "dropped 2 of 90" in lines[0], lines[0]))


def no_times() -> Result:
    kinds = not_times()
    found = {k: refusal(lambda v=v: fitted_times(course(v)), "obs['time'] holds")[0] for k, v in kinds.items()}
    return all(found.values()), f"{sum(found.values())} of {len(found)} kinds refused ({', '.join(kinds)})"


def spacing() -> Result:
    from thalweg.flows.store import load_fit

    adata = course([0, 1, 7])
    tw.tl.fit(adata, "time", spacing="real", rng=0, config=QUICK)
    tau = load_fit(adata.uns["thalweg"], "thalweg").flow.axis.tau([0.0, 1.0, 7.0])
    share = float((tau[1] - tau[0]) / (tau[2] - tau[0]))
    return abs(share - 1 / 7) < 1e-12, f"first interval is {share:.4f} of the axis (1/7 = 0.1429)"


def one_time() -> Result:
    refused = refusal(lambda: fitted_times(course([3.0])), "two or more times", "only the time 3")
    adata = course([0, 1])
    adata.obs["time"] = adata.obs["time"].astype("category").cat.add_categories([5, 9])
    times = fitted_times(adata)
    return both(refused, (times == [0, 1], f"with unused categories 5 and 9: {times}"))


def few_cells() -> Result:
    adata = course([0.0, 1.0, 3.0])[[0, *range(30, 90)]].copy()
    with logged() as lines:
        tw.tl.fit(adata, "time", rng=0, config=QUICK)
    finite = bool(np.isfinite(tw.tl.interpolate(adata, 0.5).obsm["X_pca"]).all())
    said = any("time 0 has a single cell" in line for line in lines)
    empty = refusal(lambda: tw.tl.interpolate(adata, 2.0, source_time=2.0), "source_time=2.0 is not observed")
    held = refusal(lambda: tw.tl.leave_one_out(adata, "time", times=[2.0]), "times=[2.0]")
    return both((finite and said, "one cell: fitted, with a warning"), empty, held)


CASES: dict[int, tuple[str, Case]] = {
    1: ('times "d0", "d2", "d10"', labels),
    2: ('numeric strings "0", "2", "10"', numeric_text),
    3: ("NaN in time", missing),
    4: ("inf, bool, datetime as time", no_times),
    5: ("times 0, 1, 7", spacing),
    6: ("one time point; unused categories", one_time),
    7: ("one cell at a time point; an empty one", few_cells),
}
