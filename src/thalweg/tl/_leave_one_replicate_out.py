"""`tl.leave_one_replicate_out`: how well a fit predicts a replicate that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from thalweg._device import resolve_device
from thalweg._random import Rng, resolve_rng
from thalweg._settings import settings
from thalweg.data.cells import read_course
from thalweg.data.entries import plan_relaxation
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.times import TimeMap
from thalweg.errors import InputError
from thalweg.flows.config import FitConfig
from thalweg.flows.evaluate import Trial, candidates
from thalweg.flows.methods import Method
from thalweg.flows.replicate_folds import COLUMNS, REFERENCES, replicate_folds
from thalweg.flows.time_axis import Spacing

if TYPE_CHECKING:
    from anndata import AnnData


def leave_one_replicate_out(
    adata: AnnData,
    time_key: str,
    replicate_key: str,
    *,
    methods: str | Method | Sequence[str | Method] = ("usb", "otcfm"),
    n_seeds: int = 1,
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    condition_key: Columns = None,
    baseline: Baseline = None,
    couple_within: Columns = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    spacing: Spacing = "clock",
    stochastic: bool | float = False,
    config: FitConfig | None = None,
    rng: Rng = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Hold out each replicate, and predict its later cells from its first ones.

    For each replicate every method is fitted to the others only. The first population of the replicate is carried
    through the flow to the later times of the replicate, and compared with its real cells there by exact Wasserstein-1.
    So it is asked what a fit says of another animal, donor or dish; `leave_one_out` asks for another time. A replicate
    must have one name at all its times.

    Beside each prediction stand three references without a network: ``"copy-first"``, the first cells of the replicate
    as they are; ``"other-replicates"``, the cells of the same time of all other replicates, from which this one differs
    anyway; and ``"floor"``, two disjoint halves of its cells. A prediction that is as good as ``"other-replicates"``
    has learned what there is to learn from the others. It can be better, as it knows where the replicate started.

    Parameters
    ----------
    adata
        Cells of two or more times and replicates; it is not changed.
    time_key, use_rep, n_dims, time_map, condition_key, baseline, couple_within, weight_key, growth_key
        As in `fit`. Growth rates that `thalweg.pp.growth` made of plans (``method="unbalanced"``) have seen the
        replicate; they are computed again without it.
    replicate_key
        Column of ``obs`` with the replicate of each cell.
    methods
        What to score: names of `fit`, or a `Method` of your own.
    n_seeds
        Number of seeds for each method and for the floor.
    spacing, stochastic
        As in `leave_one_out`.
    config
        Of every fit.
    rng
        Seed of the first fit; the following seeds count up from it. A generator draws it.
    device
        As in `fit`.

    Returns
    -------
    A row for each replicate, condition (with conditions), time after its first, method or reference, and seed, with the
    columns ``replicate``, ``condition``, ``time``, ``method``, ``seed``, ``w1`` and ``energy_distance`` (units of the
    representation), ``variance_ratio`` (predicted over real) and ``fit_seconds`` (plans included; 0 for references).
    `thalweg.get.replicate_scores_df` has means over replicates with intervals. There is no row
    ``"other-replicates"`` where no other replicate has the time. A replicate of one time is trained on and never left
    out, and times that no other replicate reaches are left out; a warning names both.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If there are fewer than two replicates, each holds one time only, a label is missing, a method is unknown, or
        the data cannot be used.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.simulated(rng=0)
    >>> adata.obs["mouse"] = [f"m{i % 3}" for i in range(adata.n_obs)]
    >>> scores = tw.tl.leave_one_replicate_out(adata, "time", "mouse", methods="otcfm")
    >>> summary = tw.get.replicate_scores_df(scores)
    """
    chosen = {}
    for name, one in candidates(methods).items():
        if not isinstance(one, Method) or name in REFERENCES:
            raise InputError(
                f"methods must be names of tw.tl.fit or tw.tl.Method objects of other names, found {one!r}."
            )
        chosen[name] = one
    if n_seeds < 1:
        raise InputError(f"n_seeds must be at least 1, found {n_seeds}.")
    recipe = Recipe(
        time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key, replicate_key=replicate_key,
        baseline=baseline, couple_within=couple_within,
    )  # fmt: skip
    cells = read_course(adata, recipe)
    relaxation = None if growth_key is None else plan_relaxation(adata, growth_key)
    folds = replicate_folds(cells, replicate_key, spacing, relaxation)
    first = int(rng) if isinstance(rng, int | np.integer) else int(resolve_rng(rng).integers(2**31))
    trial, seeds = (
        Trial(config or FitConfig(), spacing, resolve_device(device), stochastic),
        range(first, first + n_seeds),
    )
    rows = [row for fold in folds for row in fold.references(seeds)]
    with tqdm(
        total=len(folds) * len(chosen) * n_seeds, desc="leave a replicate out", disable=not settings.progress
    ) as bar:
        for fold, method, seed in product(folds, chosen.values(), seeds):
            rows += fold.rows(method, trial, seed)
            bar.update()
    table = pd.DataFrame(rows, columns=["replicate", "condition", *COLUMNS[1:]] if cells.stratum_names else COLUMNS)
    return table.sort_values(["replicate", "time"], kind="stable", ignore_index=True)
