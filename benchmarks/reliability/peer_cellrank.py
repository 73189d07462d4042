"""Cases of CellRank: the time column of its `RealTimeKernel`, and its files."""

from __future__ import annotations

import pickle
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import peer_common as common

warnings.simplefilter("ignore")
from cellrank.kernels import RealTimeKernel  # noqa: E402


def order(adata: Any) -> list[Any]:
    """The time points of a kernel, in its order."""
    return list(RealTimeKernel(adata, time_key="time").experimental_time.cat.categories)


def labels() -> common.Result:
    refused = common.refuses(lambda: order(common.course(["d0", "d10", "d2"])))
    adata = common.course(["d0", "d10", "d2"])
    adata.obs["time"] = adata.obs["time"].astype("category")
    as_category = common.refuses(lambda: order(adata))
    return refused[0] and as_category[0], f"text: {refused[1]}; categories: {as_category[1]}"


def numeric_text() -> common.Result:
    found = [float(t) for t in order(common.course(["0", "10", "2"]))]
    return found == [0, 2, 10], f"{found}"


def missing() -> common.Result:
    adata = common.course([0.0, 1.0, 3.0])
    adata.obs.loc[["cell3", "cell7"], "time"] = np.nan
    return common.refuses(lambda: order(adata))


def no_times() -> common.Result:
    kinds = {
        "inf": [0.0, np.inf, 3.0],
        "bool": [False, True],
        "datetime": list(pd.date_range("2026-01-01", periods=3)),
        "timedelta": list(pd.to_timedelta([0, 1, 2], unit="D")),
    }
    found = {k: common.refuses(lambda v=v: order(common.course(v)))[0] for k, v in kinds.items()}
    return all(found.values()), f"{sum(found.values())} of {len(found)} kinds refused: {found}"


def one_time() -> common.Result:
    refused = common.refuses(lambda: order(common.course([3.0])))
    adata = common.course([0, 1])
    adata.obs["time"] = adata.obs["time"].astype("category").cat.add_categories([5, 9])
    found = order(adata)
    return refused[0] and found == [0, 1], f"{refused[1]}; with unused categories: {found}"


def hostile() -> common.Result:
    return common.runs_code(RealTimeKernel.read, lambda marker: pickle.dumps(common.Payload(marker)))


CASES: dict[int, common.Case] = {1: labels, 2: numeric_text, 3: missing, 4: no_times, 6: one_time, 26: hostile}

if __name__ == "__main__":
    common.run(version("cellrank"), CASES)
