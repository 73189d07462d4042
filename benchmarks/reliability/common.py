"""What the case files share: small courses, quick fits, and one way to say what happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anndata import AnnData
from benchmarks.reliability import peer_common

import thalweg as tw

Result = tuple[bool, str]
"""Whether the case passed, and the figure to print."""
Case = Callable[[], Result]
QUICK = tw.tl.FitConfig(max_steps=20, batch_size=32, width=8, depth=1)


def course(times: Any = (0.0, 1.0, 3.0), n: int = 30, dims: int = 3, seed: int = 0) -> AnnData:
    """The course that the peers get, without expression."""
    adata = peer_common.course(times, n, dims, seed)
    return AnnData(obs=adata.obs, obsm=dict(adata.obsm))


def fitted_times(adata: AnnData, **options: Any) -> list[float]:
    """Times that a fit to ``obs["time"]`` uses."""
    out = tw.tl.fit(adata, "time", rng=0, config=QUICK, copy=True, **options)
    return [float(t) for t in out.uns["thalweg"]["time"]["times"]]


def refusal(call: Callable[[], object], *words: str) -> Result:
    """Passed if ``call`` raises an error of the package that holds all ``words``."""
    try:
        call()
    except tw.errors.ThalwegError as error:
        absent = [word for word in words if word not in str(error)]
        return not absent, f"{type(error).__name__}: {error}" + (f" (lacks {absent})" if absent else "")
    except Exception as error:
        return False, f"foreign {type(error).__name__}: {error}"
    return False, "accepted"


def both(*results: Result) -> Result:
    """All of them, their figures joined."""
    return all(passed for passed, _ in results), "; ".join(figure for _, figure in results)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Lines that the package logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger, level = logging.getLogger("thalweg"), tw.settings.verbosity
    tw.settings.verbosity, others = "info", logger.handlers
    logger.handlers = [handler]  # they are collected, not shown
    try:
        yield lines
    finally:
        logger.handlers = others
        tw.settings.verbosity = level
