"""Entropic transport, balanced or with relaxed marginals; problem and method are described in `solver`."""

from thalweg.core.ot.entropic.entries import ENTRY, PlanEntries, plan_entries
from thalweg.core.ot.entropic.solver import EntropicPlan, relative_epsilon, solve_entropic

__all__ = [
    "ENTRY",
    "EntropicPlan",
    "PlanEntries",
    "plan_entries",
    "relative_epsilon",
    "solve_entropic",
]
