"""Data sets as AnnData: simulated ones with a known drift, real time courses, and checked access to their files.

``simulated``, ``experiment`` and ``toggle_switch`` need no network. The others are read from the folder named by
``THALWEG_DATA_DIR``, else from the user's cache, else downloaded; every file is checked against its sha256 (see
`fetch`).
"""

from thalweg.datasets._experiment import experiment
from thalweg.datasets._real import boolode, cite, larry, mef_reprogramming
from thalweg.datasets._registry import fetch
from thalweg.datasets._simulated import simulated, simulated_drift
from thalweg.datasets._toggle_switch import toggle_switch

__all__ = [
    "boolode",
    "cite",
    "experiment",
    "fetch",
    "larry",
    "mef_reprogramming",
    "simulated",
    "simulated_drift",
    "toggle_switch",
]
