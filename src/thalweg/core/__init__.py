"""The loss core: couplings, paths, losses, fields, integration and distances. Arrays in, arrays out.

Three functions meet through one batch: a coupling draws index pairs, a path turns pairs into ``(t, x_t, u_t)``, a loss
compares a model with a batch and returns one value for each sample.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.core import (
        action,
        comparison,
        contrastive,
        couplings,
        dispersive,
        distances,
        dynamics,
        fields,
        losses,
        manifolds,
        maps,
        objectives,
        ot,
        paths,
    )

__all__ = [
    "action",
    "comparison",
    "contrastive",
    "couplings",
    "dispersive",
    "distances",
    "dynamics",
    "fields",
    "losses",
    "manifolds",
    "maps",
    "objectives",
    "ot",
    "paths",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"thalweg.core.{name}")
    raise AttributeError(f"module 'thalweg.core' has no attribute {name!r}")
