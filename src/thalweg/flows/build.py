"""The flow of trained networks."""

from __future__ import annotations

import pandas as pd

from thalweg.flows.dynamics import Dynamics
from thalweg.flows.flow import Floats, Flow
from thalweg.flows.methods import Method
from thalweg.flows.networks import FlowNet
from thalweg.flows.noise_flow import NoiseFlow
from thalweg.flows.time_axis import TimeAxis


def make_flow(
    method: Method,
    net: FlowNet,
    axis: TimeAxis,
    center: Floats,
    scale: float,
    sigma: float,
    intervals: pd.DataFrame,
    conditions: tuple[str, ...],
) -> Flow:
    """A `Flow`, or a `NoiseFlow` for a method that learns from noise; its networks learn no further.

    Parameters
    ----------
    method, net, axis, center, scale, sigma
        As in `Flow`.
    intervals
        The couplings it was trained on, see `thalweg.flows.coupling.Coupled`.
    conditions
        Names of the conditions.
    """
    kind = NoiseFlow if method.field == "noise" else Flow
    spans = _spans(intervals, conditions)
    net = net.eval().requires_grad_(False)
    process = None
    if net.dynamics is not None:
        diffusion: float | Floats = sigma
        if isinstance(net.dynamics, Dynamics):
            diffusion = net.dynamics.sigma.double().cpu().numpy()
        process = Flow(net.dynamics, axis.calendar, center, scale, diffusion, spans, conditions)
    return kind(net, axis, center, scale, sigma, spans, conditions, process)


def _spans(intervals: pd.DataFrame, conditions: tuple[str, ...]) -> dict[int, tuple[float, float]]:
    """First and last time between which each condition was trained."""
    if not conditions:
        return {}
    found = intervals.assign(condition=intervals["condition"].astype(str)).groupby("condition")
    number = {name: i for i, name in enumerate(conditions)}
    return {number[str(name)]: (float(t["t0"].min()), float(t["t1"].max())) for name, t in found if name in number}
