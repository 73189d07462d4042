"""Tools: learn flows between time points, predict unseen ones, and say how good the prediction is."""

from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.tl._config import FitConfig
from thalweg.tl._decode import decode
from thalweg.tl._drivers import drivers
from thalweg.tl._fate import fate
from thalweg.tl._fit import fit
from thalweg.tl._gene_trends import gene_trends
from thalweg.tl._interpolate import interpolate
from thalweg.tl._leave_one_out import leave_one_out
from thalweg.tl._lineage import ancestors, descendants
from thalweg.tl._log_likelihood import log_likelihood
from thalweg.tl._trajectories import trajectories
from thalweg.tl._transition import transition
from thalweg.tl._velocity import velocity

__all__ = [
    "Contrastive",
    "Dispersive",
    "FitConfig",
    "ancestors",
    "decode",
    "descendants",
    "drivers",
    "fate",
    "fit",
    "gene_trends",
    "interpolate",
    "leave_one_out",
    "log_likelihood",
    "trajectories",
    "transition",
    "velocity",
]
