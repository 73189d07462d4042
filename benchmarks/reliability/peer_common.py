"""What the peers' cases share. Runs in the peer's own environment: nothing of thalweg is imported here."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import peers

Result = tuple[bool, str]
Case = Callable[[], Result]


def run(name: str, cases: dict[int, Case], settings: dict[str, Any]) -> None:
    """Run a peer's cases and answer with what each showed."""
    out = {}
    for number, case in cases.items():
        try:
            passed, figure = case()
        except Exception as error:
            passed, figure = False, f"{type(error).__name__}: {_line(error)}"
        out[number] = {"passed": bool(passed), "figure": figure}
    peers.answer(name, out, settings)


def refuses(call: Callable[[], Any], show: Callable[[Any], str] = str) -> Result:
    """Passed if the call raises, whatever the error says: wording is not held against a peer."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = call()
        except Exception as error:
            return True, f"{type(error).__name__}: {_line(error)}"
    note = f" (warned: {_line(said[-1].message)})" if said else ""
    return False, f"accepted: {show(value)}{note}"


def not_times() -> dict[str, list[Any]]:
    """Columns that are no times, by what they hold."""
    import pandas as pd

    return {
        "inf": [0.0, np.inf, 3.0],
        "bool": [False, True],
        "datetime": list(pd.date_range("2026-01-01", periods=3)),
        "timedelta": list(pd.to_timedelta([0, 1, 2], unit="D")),
    }


def refuses_not_times(call: Callable[[list[Any]], Any]) -> Result:
    """Passed if the call raises for each column of `not_times`."""
    found = {kind: refuses(lambda v=values: call(v))[0] for kind, values in not_times().items()}
    return all(found.values()), f"{sum(found.values())} of {len(found)} kinds refused: {found}"


def runs_code(load: Callable[[Path], object], payload: Callable[[str], bytes]) -> Result:
    """Passed if loading a hostile file creates nothing."""
    with tempfile.TemporaryDirectory() as folder:
        marker, path = Path(folder) / "ran", Path(folder) / "model.pkl"
        path.write_bytes(payload(str(marker)))
        try:
            load(path)
        except Exception as error:
            shown = f"{type(error).__name__}"
        else:
            shown = "loaded"
        return not marker.exists(), f"{shown}; code of the file ran: {marker.exists()}"


class Payload:
    """Unpickling an instance creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def clouds(n: int = 200, d: int = 10, seed: int = 0) -> tuple[Any, Any]:
    """Two float32 clouds, two standard deviations apart."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d)) + 2 / np.sqrt(d)
    return x.astype(np.float32), y.astype(np.float32)


def course(times: Any, n: int = 30, dims: int = 3, seed: int = 0) -> Any:
    """Gaussian clouds, one for each entry of ``times``, a unit apart; the entries may be of any type."""
    import pandas as pd
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.standard_normal((n, dims)) + k for k in range(len(times))])
    column = pd.Series([t for t in times for _ in range(n)], index=[f"cell{i}" for i in range(len(x))])
    return AnnData(x.astype(np.float32), obs=pd.DataFrame({"time": column}), obsm={"X_pca": x.astype(np.float32)})


class Logged(logging.Handler):
    """Collects what is logged anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _line(error: object) -> str:
    return " ".join(str(error).split())[:160]
