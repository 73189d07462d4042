"""Tools: learn flows between time points, predict unseen ones, and say how good the prediction is."""

from thalweg.tl._config import FitConfig
from thalweg.tl._fit import fit
from thalweg.tl._interpolate import interpolate, velocity
from thalweg.tl._leave_one_out import leave_one_out

__all__ = ["FitConfig", "fit", "interpolate", "leave_one_out", "velocity"]
