"""Exact transport between two point clouds, certified by its dual problem; the method is described in `solver`."""

from thalweg.core.ot.exact.solver import SMALL, ExactPlan, certify, check_fits, solve_exact

__all__ = ["SMALL", "ExactPlan", "certify", "check_fits", "solve_exact"]
