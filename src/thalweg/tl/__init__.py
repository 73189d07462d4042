"""Tools: learn flows between time points, predict unseen ones, and say how good the prediction is."""

from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.tl._config import FitConfig
from thalweg.tl._fit import fit
from thalweg.tl._interpolate import interpolate, velocity
from thalweg.tl._leave_one_out import leave_one_out
from thalweg.tl._log_likelihood import log_likelihood

__all__ = [
    "Contrastive",
    "Dispersive",
    "FitConfig",
    "fit",
    "interpolate",
    "leave_one_out",
    "log_likelihood",
    "velocity",
]
