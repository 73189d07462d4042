"""Whether a process returns what it was trained on: the first population, rolled out through all observed times."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thalweg._settings import logger
from thalweg.core.distances import wasserstein
from thalweg.data.cells import Cells, Floats, Rows
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.flow import Flow
from thalweg.flows.running import Integrator

CELLS = 300
"""Cells of each population that take part."""
BAD, WORTH = 2.0, 0.25
"""A population has not come back if its W1 is above these multiples of the floor, and of that of the first one."""
_STEPS = 25  # of the SDE, in an interval


def reconstruct(flow: Flow, cells: Cells, sizes: Floats | None) -> pd.DataFrame:
    """Roll the first population of each condition out, and compare it with each observed one.

    Parameters
    ----------
    flow
        The process.
    cells
        The course, with its turnover.
    sizes
        Of the populations, shape ``(n_conditions or 1, n_times)``; None where they were not given.

    Returns
    -------
    A row for each condition and time after the first: ``condition`` (with conditions), ``time``, ``w1`` between the
    population rolled out and the observed one, ``floor`` (W1 of two disjoint halves of the observed one), ``still`` (W1
    of the first population), all in units of the representation; ``mass`` relative to the first population,
    ``counted``, the size that was given (NaN without), and ``mass_error``, relative.
    """
    rng, table = np.random.default_rng(0), []
    for condition in cells.strata:
        times = cells.times_of(condition).tolist()
        course = cells.take(np.concatenate([_some(cells.rows(t, condition), rng) for t in times]))
        carrier = Carrier(flow, course, make_noise(flow, None, rng), Integrator(n_steps=_STEPS))
        first = course.rows(times[0])
        for t, x, weight in carrier.rolled_out(condition) if len(times) > 1 else ():
            real, mass = course.rows(t), float(weight.sum() / course.weights[first].sum())
            counted = np.nan if sizes is None else _ratio(cells, sizes[condition], times[0], t)
            row: dict[str, object] = {"condition": cells.stratum_names[condition]} if cells.stratum_names else {}
            row |= {"time": t, "w1": _w1(course, real, x, weight), "floor": _floor(course, real, rng)}
            row |= {"still": _w1(course, real, course.x[first], course.weights[first])}
            row |= {"mass": mass, "counted": counted, "mass_error": abs(mass / counted - 1)}
            table.append(row)
    found = pd.DataFrame(table)
    _remark(found, sizes is not None)
    return found


def _some(rows: Rows, rng: np.random.Generator) -> Rows:
    some: Rows = np.sort(rng.permutation(rows)[:CELLS])
    return some


def _w1(course: Cells, real: Rows, x: Floats, weights: Floats) -> float:
    p, q = weights / weights.sum(), course.weights[real] / course.weights[real].sum()
    return wasserstein(x, course.x[real], p=1, a=p, b=q)


def _floor(course: Cells, real: Rows, rng: np.random.Generator) -> float:
    """W1 of two disjoint halves; NaN where a single cell has none."""
    one, other = np.split(rng.permutation(real), [len(real) // 2])
    return _w1(course, other, course.x[one], course.weights[one]) if len(one) else np.nan


def _ratio(cells: Cells, sizes: Floats, first: float, time: float) -> float:
    return float(sizes[cells.times == time][0] / sizes[cells.times == first][0])


def _remark(found: pd.DataFrame, sized: bool) -> None:
    """Say how well the populations come back, with a warning where they do not."""
    if not len(found):
        return
    worst = found.loc[(found["w1"] / found["floor"]).idxmax()] if found["floor"].notna().any() else found.iloc[-1]
    logger.info(
        "rolled out from the first time, the populations come back to W1 %.3g at worst, at time %g (floor %.3g)%s",
        worst["w1"], worst["time"], worst["floor"],
        f"; masses to {100 * found['mass_error'].max():.1f} %" if sized else "; masses are relative, without sizes",
    )  # fmt: skip
    bad = found[(found["w1"] > BAD * found["floor"]) & (found["w1"] > WORTH * found["still"])]
    for name, rows in bad.groupby("condition") if "condition" in bad else [("", bad)]:
        if len(rows):
            logger.warning(
                "the flow does not return the populations%s at time %s, which it was trained on: W1 %s, where two "
                "halves of the real cells have %s and the first population as it is %s. Train longer "
                "(config.max_steps), or check that times and conditions are right; tw.pl.reconstruction shows it",
                f" of {name!r}" if name else "",
                *(", ".join(f"{v:.3g}" for v in rows[column]) for column in ("time", "w1", "floor", "still")),
            )  # fmt: skip
