"""Tools: learn flows between time points, predict unseen ones, and say how good the prediction is.

Each function has a file of its own, which loads when it is first asked for: running a stored fit loads no trainer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.core.objectives import Contrastive, Dispersive
    from thalweg.flows.choice import Choice
    from thalweg.flows.config import FitConfig
    from thalweg.flows.methods import Method
    from thalweg.tl._ancestors import ancestors
    from thalweg.tl._assess import assess
    from thalweg.tl._choose import choose
    from thalweg.tl._compare import compare
    from thalweg.tl._decode import decode
    from thalweg.tl._descendants import descendants
    from thalweg.tl._drivers import drivers
    from thalweg.tl._fate import fate
    from thalweg.tl._fit import fit
    from thalweg.tl._gene_trends import gene_trends
    from thalweg.tl._interpolate import interpolate
    from thalweg.tl._leave_one_out import leave_one_out
    from thalweg.tl._leave_one_replicate_out import leave_one_replicate_out
    from thalweg.tl._log_likelihood import log_likelihood
    from thalweg.tl._map_query import map_query
    from thalweg.tl._next_time import next_time
    from thalweg.tl._terminal_states import terminal_states
    from thalweg.tl._trajectories import trajectories
    from thalweg.tl._transition import transition
    from thalweg.tl._velocity import velocity

__all__ = [
    "Choice",
    "Contrastive",
    "Dispersive",
    "FitConfig",
    "Method",
    "ancestors",
    "assess",
    "choose",
    "compare",
    "decode",
    "descendants",
    "drivers",
    "fate",
    "fit",
    "gene_trends",
    "interpolate",
    "leave_one_out",
    "leave_one_replicate_out",
    "log_likelihood",
    "map_query",
    "next_time",
    "terminal_states",
    "trajectories",
    "transition",
    "velocity",
]
_OPTIONS = {
    "Choice": "thalweg.flows.choice",
    "Contrastive": "thalweg.core.objectives",
    "Dispersive": "thalweg.core.objectives",
    "FitConfig": "thalweg.flows.config",
    "Method": "thalweg.flows.methods",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'thalweg.tl' has no attribute {name!r}")
    return getattr(importlib.import_module(_OPTIONS.get(name, f"thalweg.tl._{name}")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
