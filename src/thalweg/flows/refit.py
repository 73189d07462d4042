"""The process of a fit, learned again from other cells of the same course, such as those of one replicate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from thalweg.data.cells import Cells
from thalweg.flows import normalisation
from thalweg.flows.diffusion import find_diffusion
from thalweg.flows.fitting import train_flow
from thalweg.flows.flow import Flow
from thalweg.flows.states import describe
from thalweg.flows.store import Stored
from thalweg.flows.turnover import find_turnover


def refit(stored: Stored, cells: Cells, rng: np.random.Generator) -> tuple[Flow, Cells]:
    """The process of some cells, and these cells with their births and deaths.

    A method with bridges takes its diffusion, births and deaths from the cells; its plans are made where they are
    needed, and no network is trained, so the flow that comes back is for plans only. Other methods train anew.

    Parameters
    ----------
    stored
        The fit: its method, configuration, time axis and units are those of the new one.
    cells
        A course of one condition.
    rng
        Source of all that is drawn.
    """
    method, flow = stored.method, stored.process
    if not method.bridged:
        fitted = train_flow(
            cells, method, stored.flow.axis, stored.config, rng, device=flow.device, units=(flow.center, flow.scale),
            description=method.name,
        )  # fmt: skip
        return fitted.flow.process, fitted.alive(cells)
    z = normalisation.normalise(cells.x, flow.center, flow.scale)
    states = describe(cells, z)
    found = find_diffusion(cells, z, flow.axis, method, stored.config, states)
    alive = find_turnover(cells, z, states, stored.config, None).of(cells, z)
    return replace(flow, sigma=found.sigma, spans={}, conditions=()), alive
