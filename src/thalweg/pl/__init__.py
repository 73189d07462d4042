"""Plots of what the tools wrote; each draws on ``ax`` and returns it."""

from thalweg.pl._animation import animation, write_animation
from thalweg.pl._assess import assess
from thalweg.pl._compare import compare
from thalweg.pl._drivers import drivers
from thalweg.pl._fate import fate
from thalweg.pl._fate_calibration import fate_calibration
from thalweg.pl._fate_flow import fate_flow
from thalweg.pl._gene_trends import gene_trends
from thalweg.pl._growth import growth
from thalweg.pl._history import history
from thalweg.pl._interpolation import interpolation
from thalweg.pl._leave_one_out import leave_one_out
from thalweg.pl._next_time import next_time
from thalweg.pl._reconstruction import reconstruction
from thalweg.pl._time_course import time_course
from thalweg.pl._trajectories import trajectories
from thalweg.pl._velocity import velocity

__all__ = [
    "animation",
    "assess",
    "compare",
    "drivers",
    "fate",
    "fate_calibration",
    "fate_flow",
    "gene_trends",
    "growth",
    "history",
    "interpolation",
    "leave_one_out",
    "next_time",
    "reconstruction",
    "time_course",
    "trajectories",
    "velocity",
    "write_animation",
]
