"""The files that an AnnData passes through in one call of `fit`, `interpolate`, `fate` and `leave_one_out`.

    python -m benchmarks.reliability.journey

A call of the package's code is a stop of the journey if one of its arguments is the AnnData itself. Stops in one file
in a row count as one. The fewer returns to a file that was left, the shorter the way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from anndata import AnnData

import thalweg as tw

ROOT = Path(tw.__file__).parent
CONFIG = tw.tl.FitConfig(max_steps=5, width=8, depth=1)


def stops(call: Callable[[], object]) -> list[str]:
    """Files in the order in which the AnnData enters them."""
    found: list[str] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(ROOT)):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(isinstance(frame.f_locals.get(name), AnnData) for name in names):
            file = str(Path(code.co_filename).relative_to(ROOT))
            if not found or found[-1] != file:
                found.append(file)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def main() -> None:
    """Print the journeys."""
    tw.settings.progress, tw.settings.verbosity = False, "error"
    adata = tw.datasets.simulated(n_cells=60, rng=0)
    calls: dict[str, Callable[[], object]] = {
        "tl.fit": lambda: tw.tl.fit(adata, "time", rng=0, config=CONFIG),
        "tl.interpolate": lambda: tw.tl.interpolate(adata, 1.5),
        "tl.fate": lambda: tw.tl.fate(adata, "branch"),
        "tl.leave_one_out": lambda: tw.tl.leave_one_out(adata, "time", methods="otcfm", n_seeds=1, config=CONFIG),
    }
    for call in calls.values():
        call()  # once before, so that nothing is imported on the way
    for name, call in calls.items():
        found = stops(call)
        print(f"{name}: {len(found)} stops in {len(set(found))} files\n  " + " -> ".join(found))


if __name__ == "__main__":
    main()
