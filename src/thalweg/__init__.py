"""thalweg: single-cell trajectory inference with flow matching and Schrödinger bridges.

The usual import is ``import thalweg as tw``. Submodules load when first used, so the import itself is light:

- ``tw.datasets``: simulated and real time courses
- ``tw.pp``: representations and weights before a fit
- ``tw.tl``: fit, interpolate, velocity, leave_one_out
- ``tw.pl``: plots of what ``tl`` wrote
- ``tw.get``: tidy data out of an AnnData
- ``tw.metrics``: Wasserstein and other distances
- ``tw.read_h5ad``: read an h5ad that may come from a stranger
- ``tw.core``, ``tw.training``: the loss core and the training loop, for method development
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from thalweg._settings import settings

if TYPE_CHECKING:
    from thalweg import core, datasets, errors, get, metrics, pl, pp, tl, training
    from thalweg.data.io.reader import read_h5ad

__version__ = "0.2.0.dev0"
__all__ = [
    "__version__",
    "core",
    "datasets",
    "errors",
    "get",
    "metrics",
    "pl",
    "pp",
    "read_h5ad",
    "settings",
    "tl",
    "training",
]
_SUBMODULES = {"core", "datasets", "errors", "get", "metrics", "pl", "pp", "tl", "training"}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"thalweg.{name}")
    if name == "read_h5ad":
        return importlib.import_module("thalweg.data.io.reader").read_h5ad
    raise AttributeError(f"module 'thalweg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
