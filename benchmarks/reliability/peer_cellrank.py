"""Cases of CellRank: the time column of its `RealTimeKernel`, and its files."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
from benchmarks.reliability import peer_common as common

warnings.simplefilter("ignore")
from cellrank.kernels import RealTimeKernel  # noqa: E402


def couplings(times: Any, **changes: Any) -> list[tuple[Any, Any]]:
    """The pairs of times that a kernel would couple, from a categorical column as its documentation asks for."""
    adata = common.course(times)
    for cell, value in changes.items():
        adata.obs.loc[cell, "time"] = value
    adata.obs["time"] = adata.obs["time"].astype("category")
    return list(RealTimeKernel(adata, time_key="time").couplings)


def labels() -> common.Result:
    return common.refuses(lambda: couplings(["d0", "d10", "d2"]))


def numeric_text() -> common.Result:
    found = [tuple(map(float, pair)) for pair in couplings(["0", "10", "2"])]
    return found == [(0, 2), (2, 10)], f"{found}"


def missing() -> common.Result:
    return common.refuses(lambda: couplings([0.0, 1.0, 3.0], cell3=np.nan, cell7=np.nan))


def no_times() -> common.Result:
    return common.refuses_not_times(couplings)


def one_time() -> common.Result:
    refused = common.refuses(lambda: couplings([3.0]))
    adata = common.course([0, 1])
    adata.obs["time"] = adata.obs["time"].astype("category").cat.add_categories([5, 9])
    found = list(RealTimeKernel(adata, time_key="time").couplings)
    return refused[0] and found == [(0, 1)], f"one time: {refused[1]}; with unused categories: {found}"


def hostile() -> common.Result:
    return common.runs_code(RealTimeKernel.read, lambda marker: pickle.dumps(common.Payload(marker)))


CASES: dict[int, common.Case] = {1: labels, 2: numeric_text, 3: missing, 4: no_times, 6: one_time, 26: hostile}

if __name__ == "__main__":
    common.run("cellrank", CASES, {"time": "a categorical column, as its documentation asks for"})
