"""`tl.choose`: a method for a course, by its own inner times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from thalweg._device import resolve_device
from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.data.cells import read_course
from thalweg.data.entries import plan_relaxation
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.times import TimeMap
from thalweg.errors import InputError
from thalweg.flows import choice
from thalweg.flows.choice import Choice
from thalweg.flows.config import FitConfig
from thalweg.flows.evaluate import Candidate, Trial, candidates
from thalweg.flows.time_axis import Spacing

if TYPE_CHECKING:
    from anndata import AnnData


def choose(
    adata: AnnData,
    time_key: str,
    *,
    methods: Sequence[str | Candidate] = choice.CANDIDATES,
    n_seeds: int = 2,
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    condition_key: Columns = None,
    baseline: Baseline = None,
    couple_within: Columns = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    spacing: Spacing = "clock",
    config: FitConfig | None = None,
    rng: Rng = 0,
    device: str = "auto",
) -> Choice:
    """Choose a method for a course by leaving out its inner times.

    The first method is the default. Another one takes its place where its predictions are better on average over the
    times left out, by more than half of the standard error of that average; the reason says whether that is certain.
    ``leave_one_out(methods="auto")`` scores the choice,
    which is made for each time by the others.

    Parameters
    ----------
    adata
        Cells; it is not changed.
    time_key, use_rep, n_dims, time_map, condition_key, baseline, couple_within, weight_key, growth_key, spacing
        As in `fit`.
    methods
        Candidates, as of `leave_one_out`; the first is the default.
    n_seeds
        Fits of each candidate at each time.
    config
        Of every fit.
    rng
        Seed of the first fit; the following seeds count up from it. A generator draws it.
    device
        As in `fit`.

    Returns
    -------
    ``method``, the name of the method; ``reason``, one sentence, which is logged; and ``scores``, a row for each
    candidate, time and seed as of `leave_one_out`. With fewer than three inner times it is the default, and the reason
    says so.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If the data cannot be used, a method is unknown, or there is none.
    """
    if n_seeds < 1:
        raise InputError(f"n_seeds must be at least 1, found {n_seeds}.")
    recipe = Recipe(
        time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key,
        baseline=baseline, couple_within=couple_within,
    )  # fmt: skip
    cells = read_course(adata, recipe)
    relaxation = None if growth_key is None else plan_relaxation(adata, growth_key)
    first = int(rng) if isinstance(rng, int | np.integer) else int(resolve_rng(rng).integers(2**31))
    trial = Trial(config or FitConfig(), spacing, resolve_device(device), False)
    found = choice.choose(cells, candidates(methods), trial, range(first, first + n_seeds), relaxation)
    logger.info("%s", found.reason)
    return found
