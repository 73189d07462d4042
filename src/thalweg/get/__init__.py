"""Tidy data out of an AnnData."""

from thalweg.get._assessment import assessment_df
from thalweg.get._calibration import calibration_df
from thalweg.get._cellrank import cellrank_kernel
from thalweg.get._colors import colors
from thalweg.get._compare import compare_df
from thalweg.get._fate_shares import fate_shares_df
from thalweg.get._flow_df import flow_df
from thalweg.get._genes import drivers_df, growth_df
from thalweg.get._get import history, intervals, reconstruction_df
from thalweg.get._populations import populations
from thalweg.get._replicates import replicate_scores_df
from thalweg.get._terminal_states import terminal_states_df
from thalweg.get._transitions import couplings, fate_df, transition_df
from thalweg.get._velocity_grid import velocity_grid

__all__ = [
    "assessment_df",
    "calibration_df",
    "cellrank_kernel",
    "colors",
    "compare_df",
    "couplings",
    "drivers_df",
    "fate_df",
    "fate_shares_df",
    "flow_df",
    "growth_df",
    "history",
    "intervals",
    "populations",
    "reconstruction_df",
    "replicate_scores_df",
    "terminal_states_df",
    "transition_df",
    "velocity_grid",
]
