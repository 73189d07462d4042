"""Choosing a method by times left out, and keeping the default where the evidence does not tell.

Each inner time is left out and predicted by every candidate. A candidate takes the place of the first one where its W1
is lower on average over the times (of relative differences), by more than half of the standard error of that average.
The half was fixed on simulated courses. A stricter rule keeps the default where another method is far better; a looser
one follows noise. Whether the difference is certain is another question, which the 95 % interval answers (Student's t
over times). The reason says so. Two inner times choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from thalweg._settings import logger, settings
from thalweg.data.cells import Cells
from thalweg.errors import InputError
from thalweg.flows.evaluate import COLUMNS, Candidate, Trial, candidates
from thalweg.flows.folds import Fold, make_folds
from thalweg.flows.score_rows import Row

AUTO = "auto"
"""Name of the method that chooses."""
CANDIDATES = ("usb", "otcfm", "fm")
"""What it chooses from; the first is the default."""
FEWEST = 3
"""Inner times from which they choose."""
_LEAST = 0.5  # standard errors of its mean gain by which a method must be better


class Choice(NamedTuple):
    """What was chosen, and why.

    Attributes
    ----------
    method
        Name of the method.
    reason
        One sentence.
    scores
        Rows as of `thalweg.tl.leave_one_out`, of the candidates alone; empty where there were too few times.
    """

    method: str
    reason: str
    scores: pd.DataFrame


def choose(
    cells: Cells, methods: Mapping[str, Candidate], trial: Trial, seeds: Sequence[int], relaxation: float | None = None
) -> Choice:
    """Choose among methods by the inner times of some cells.

    Parameters
    ----------
    cells
        The course; a time that is to score the choice must not be among them.
    methods
        Candidates by name; the first is the default.
    trial
        How they are fitted.
    seeds
        Of the fits of each candidate; scores are means over them.
    relaxation
        As of `thalweg.flows.folds.Fold`.

    Raises
    ------
    InputError
        If there is no candidate.
    """
    if not methods:
        raise InputError("methods must hold at least one name, the default.")
    default, inner = next(iter(methods)), cells.times[1:-1].tolist()
    if len(inner) < FEWEST or len(methods) == 1:
        known = f"{len(inner)} inner {'time is' if len(inner) == 1 else 'times are'} too few to choose by"
        only = "it is the only candidate" if len(methods) == 1 else f"{known} ({FEWEST} at least)"
        return Choice(default, f"{default}, the default: {only}", pd.DataFrame(columns=COLUMNS))
    rows = []
    with tqdm(total=len(inner) * len(methods) * len(seeds), desc="choose", disable=not settings.progress) as bar:
        for fold in make_folds(cells, inner, trial.spacing, relaxation):
            for name, candidate in methods.items():
                for seed in seeds:
                    rows.append(trial.row(fold, name, candidate, seed))
                    bar.update()
    scores = pd.DataFrame(rows, columns=COLUMNS)
    return _decided(scores, default)


def auto_row(fold: Fold, trial: Trial, seed: int) -> Row:
    """The row of the method that the training cells of a fold choose."""
    found = choose(fold.train, candidates(CANDIDATES), replace(trial, spacing=fold.spacing), [seed], fold.relaxation)
    logger.info("without time %g: %s", fold.time, found.reason)
    return trial.row(fold, found.method, candidates(found.method)[found.method], seed) | {"method": AUTO}


def _decided(scores: pd.DataFrame, default: str) -> Choice:
    """The choice by a table of scores."""
    from scipy.stats import t as student

    by_time = scores.groupby(["method", "time"])["w1_both_ends"].mean().unstack("method")
    n, better = len(by_time), {}
    for name in by_time.columns.drop(default):
        gain = 1 - (by_time[name] / by_time[default]).to_numpy()
        error = float(gain.std(ddof=1) / np.sqrt(n))
        if gain.mean() > _LEAST * error:
            better[name] = float(gain.mean()), float(student.ppf(0.975, n - 1)) * error
    if not better:
        others = ", ".join(map(str, by_time.columns.drop(default)))
        return Choice(default, f"{default}, the default: over {n} times left out no gain by {others}", scores)
    best = max(better, key=lambda name: better[name][0])
    gain, half = better[best]
    says = f"{best}: over {n} times left out its W1 is {gain:.0%} below that of {default}"
    interval = f"95% interval {gain - half:.0%} to {gain + half:.0%}"
    doubt = f" ({interval}: no difference is certain)" if half >= gain else f" ({interval})"
    return Choice(str(best), says + doubt, scores)
