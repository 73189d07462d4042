"""Plots of what the tools wrote; each draws on ``ax`` and returns it."""

from thalweg.pl._plots import history, interpolation, leave_one_out

__all__ = ["history", "interpolation", "leave_one_out"]
