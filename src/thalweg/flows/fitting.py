"""From cells to a fitted flow: normalise, couple, train. Shared by `fit` and `leave_one_out`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg._random import torch_generator
from thalweg._settings import logger
from thalweg.data.cells import Cells
from thalweg.flows import normalisation
from thalweg.flows.bending import find_bend
from thalweg.flows.build import make_flow
from thalweg.flows.config import FitConfig
from thalweg.flows.coupling import Coupled, PlanCache, couple
from thalweg.flows.diffusion import Diffusion, find_diffusion
from thalweg.flows.draws import Draws, make_draws
from thalweg.flows.flow import Flow
from thalweg.flows.methods import Method
from thalweg.flows.networks import make_net
from thalweg.flows.objective import Terms, check_options
from thalweg.flows.pairs import Pairs, couple_dynamics
from thalweg.flows.resume import Run, expect_threads
from thalweg.flows.states import describe
from thalweg.flows.time_axis import TimeAxis
from thalweg.flows.trainers import train_dynamics, train_prediction
from thalweg.flows.turnover import Turnover, find_turnover
from thalweg.training.saving import Checkpoints

_VALIDATIONS = 5  # from which their course says something


@dataclass(frozen=True)
class Fitted:
    """A flow and how it came about.

    Attributes
    ----------
    flow
        The fitted flow.
    history
        Training history, see `thalweg.training.TrainingResult`.
    intervals
        The couplings, see `thalweg.flows.coupling.Coupled`.
    best_step
        Step whose weights were kept.
    seconds
        Wall time, plans included.
    turnover
        Births and deaths, for a method that knows of them.
    """

    flow: Flow
    history: pd.DataFrame
    intervals: pd.DataFrame
    best_step: int
    seconds: float
    turnover: Turnover | None = None

    def alive(self, cells: Cells) -> Cells:
        """Cells with the births and deaths of the process; as they are where it knows of none."""
        if self.turnover is None:
            return cells
        return self.turnover.of(cells, normalisation.normalise(cells.x, self.flow.center, self.flow.scale))


def train_flow(
    cells: Cells,
    method: Method,
    axis: TimeAxis,
    config: FitConfig,
    rng: np.random.Generator,
    *,
    device: torch.device,
    sizes: NDArray[np.float64] | None = None,
    units: tuple[NDArray[np.float64], float] | None = None,
    cache: PlanCache | None = None,
    checkpoints: Checkpoints | None = None,
    dynamics_checkpoints: Checkpoints | None = None,
    description: str = "fit",
) -> Fitted:
    """Fit a flow to the cells of a course; the arguments are those of `thalweg.tl.fit`, resolved.

    ``units`` are the middle and the scale of the coordinates, by default those of the cells. The prediction and the
    dynamics are trained one after the other, each to its own best weights, so that the one does not depend on the
    other.
    """
    start = time.perf_counter()
    check_options(method, config)
    center, scale = units or normalisation.measure(cells.x)
    z = normalisation.normalise(cells.x, center, scale)
    states = describe(cells, z) if method.turns_over or method.bridged else None
    diffusion = find_diffusion(cells, z, axis.calendar if method.bridged else axis, method, config, states)
    sigma = method.sigma if method.bridged else diffusion.scale  # beside dynamics the method's own path is narrow
    terms = Terms(method, sigma, config, axis.n_intervals)
    turnover = find_turnover(cells, z, states, config, sizes) if method.turns_over and states is not None else None
    alive = cells if turnover is None else turnover.of(cells, z)
    stay = replace(cells, lost=alive.lost, arrived=alive.arrived)  # a prediction has a growth of its own
    coupled, pairs, intervals, borrowed = _coupled((stay, alive), z, axis, method, config, diffusion, cache)
    if checkpoints is not None:  # whether plans are whole depends on the memory allowed
        checkpoints.expect(couplings=coupled.intervals["coupling"].tolist())
        expect_threads(checkpoints, method)
    net = make_net(
        cells.n_dims,
        method,
        config,
        n_conditions=len(cells.conditions),
        n_intervals=axis.n_intervals,
        generator=torch_generator(rng),
    ).to(device)
    bend = find_bend(cells, z, axis, coupled) if config.path == "cubic" and method.coupling != "none" else None
    draws = make_draws(cells, z.to(device), axis, method, sigma, coupled, bend, pairs, diffusion)
    training, held_back = _split(draws, config, rng)
    dynamics, net.dynamics = net.dynamics, None
    result = train_prediction(net, terms, training, held_back, axis, config, rng, checkpoints, description)
    history, earlier = pd.DataFrame(result.history), result.earlier_seconds
    if dynamics is not None:
        own = train_dynamics(
            dynamics, training, held_back, axis.calendar, config, rng, dynamics_checkpoints, f"{description}, dynamics"
        )
        net.dynamics, earlier = dynamics, earlier + own.earlier_seconds
        history = _joined(history, pd.DataFrame(own.history))
    seconds = time.perf_counter() - start + borrowed + earlier
    steps = int(result.history["step"][-1])
    logger.info(
        "%s: %d steps in %.1f s, the weights of step %d are kept", method.name, steps, seconds, result.best_step
    )
    _remark_on(result.history)
    flow = make_flow(method, net, axis, center, scale, sigma, intervals, cells.conditions)
    return Fitted(flow, history, intervals, result.best_step, seconds, turnover)


def _remark_on(history: Mapping[str, Sequence[float]]) -> None:
    """Say so if the validation loss rises from its first value on."""
    loss = np.asarray(history.get("validation_loss", ()))
    found = loss[np.isfinite(loss)]
    if len(found) >= _VALIDATIONS and found.argmin() == 0:
        logger.warning(
            "the validation loss is lowest at its first value and rises from there: the network learned nothing that "
            "holds for cells it did not see. Give more cells, or fewer components; the weights of that step are kept"
        )


def _joined(history: pd.DataFrame, dynamics: pd.DataFrame) -> pd.DataFrame:
    """One table of both trainings, which share the steps."""
    own = dynamics.drop(columns="learning_rate").set_index("step").add_prefix("dynamics_")
    return history.set_index("step").join(own, how="outer").reset_index()


def train_flows(
    cells: Cells,
    method: Method,
    axis: TimeAxis,
    config: FitConfig,
    runs: Sequence[Run],
    *,
    device: torch.device,
    sizes: NDArray[np.float64] | None,
    description: str,
    resample: bool = False,
) -> list[Fitted]:
    """Fit several flows, one for each generator (and its checkpoints).

    They share the plans, or, with ``resample``, each has a bootstrap sample of the cells and plans of its own.
    """
    cache: PlanCache | None = None if resample else {}
    fitted, units = [], normalisation.measure(cells.x)
    with ExitStack() as opened:
        for run in runs:
            opened.callback(run.close)
        for i, run in enumerate(runs):
            name = description if len(runs) == 1 else f"{description}, model {i + 1} of {len(runs)}"
            one = train_flow(
                cells.resampled(run.rng) if resample else cells, method, axis, config, run.rng, device=device,
                sizes=sizes, units=units, cache=cache,
                checkpoints=run.checkpoints, dynamics_checkpoints=run.dynamics, description=name,
            )  # fmt: skip
            fitted.append(one)
    return fitted


def _coupled(
    cells: tuple[Cells, Cells],
    z: Tensor,
    axis: TimeAxis,
    method: Method,
    config: FitConfig,
    diffusion: Diffusion,
    cache: PlanCache | None,
) -> tuple[Coupled, Pairs | None, pd.DataFrame, float]:
    """The plans of the prediction and of the dynamics, their record, and the seconds that others spent on them.

    ``cells`` are those of both: the dynamics know their rates, the prediction only who dies or arrives in place. A fit
    is charged for every plan it uses, also for those an earlier fit on the same cells left in the cache.
    """
    start, cache = time.perf_counter(), {} if cache is None else cache
    coupled = couple(cells[0], z, axis, method, config, diffusion.scale, cache)
    if method.dynamics == "none":
        return coupled, None, coupled.intervals, max(0.0, coupled.seconds - (time.perf_counter() - start))
    pairs = couple_dynamics(cells[1], z, axis.calendar, diffusion.sigma if method.bridged else None, cache)
    seconds = coupled.seconds + float(pairs.table["dynamics_seconds"].sum())
    return coupled, pairs, coupled.intervals.join(pairs.table), max(0.0, seconds - (time.perf_counter() - start))


def _split(draws: Draws, config: FitConfig, rng: np.random.Generator) -> tuple[Draws, Draws | None]:
    """Hold back a share of the source cells of each coupling."""
    sampler = draws.prediction
    held, without = torch.zeros(len(sampler.z), dtype=torch.bool), 0
    mixture = sampler.mixture
    tags = [0] * len(mixture.parts) if mixture.tags is None else mixture.tags.tolist()
    populations = [rows for rows, tag in zip(mixture.sources, tags, strict=True) if tag == 0]  # one of several plans
    for rows in populations:
        n = int(config.validation_fraction * len(rows))
        held[rows.cpu()[torch.from_numpy(rng.permutation(len(rows))[:n])]] = True
        without += not n
    held = held.to(sampler.z.device)
    if without == len(populations):
        if config.validation_fraction > 0:
            logger.info("no coupling has cells to spare for validation; all are trained on, for max_steps")
        return draws, None
    if without:
        logger.info(
            "%d of %d couplings have too few cells to spare one; the others validate",
            without,
            len(populations),
        )
    return draws.restrict(~held), draws.restrict(held)
