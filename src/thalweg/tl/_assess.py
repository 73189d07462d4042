"""`tl.assess`: whether what a course shows can be trusted, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.data.cells import Cells, read_course
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.times import TimeMap
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.config import FitConfig
from thalweg.tl._fit import fit
from thalweg.tl._interpolate import interpolate
from thalweg.tl._leave_one_out import leave_one_out
from thalweg.tl._trust import data, fits
from thalweg.tl._trust.course import REP, TIME, keys, part, some
from thalweg.tl._trust.verdict import RULE, Evidence, Way, conclude, way_of
from thalweg.tl._velocity import velocity

if TYPE_CHECKING:
    from anndata import AnnData

_VELOCITY = f"velocity_{REP}"
_KEYS = ("first", "second")


def assess(
    adata: AnnData,
    time_key: str,
    *,
    methods: tuple[str, str] = ("usb", "otcfm"),
    use_rep: str | None = None,
    n_dims: int | None = None,
    time_map: TimeMap | None = None,
    condition_key: Columns = None,
    baseline: Baseline = None,
    couple_within: Columns = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    replicate_key: str | None = None,
    n_cells: int = 2000,
    n_models: int = 2,
    config: FitConfig | None = None,
    rng: Rng = 0,
    device: str = "auto",
    key_added: str = "assessment",
    copy: bool = False,
) -> AnnData | None:
    """Say whether trajectories of a course can be trusted: a verdict, and the evidence for it.

    The cells are looked at first: odd things about them, the cell cycle, and whether neighbouring populations differ by
    more than the same cells with exchanged times. Then each interior time is left out and predicted, and two methods
    are fitted to the whole course. The verdict follows from the evidence by a rule that is stored beside it.

    Parameters
    ----------
    adata
        Cells of two or more time points.
    time_key, use_rep, n_dims, time_map, condition_key, baseline, couple_within, weight_key, growth_key, replicate_key
        As in `fit`.
    methods
        Two names of `fit`. The verdict is on the first; the second shows how far the answer depends on the method.
    n_cells
        At most so many cells of each time (and condition), drawn at random, are fitted and scored. Scores have the
        intervals of so many cells.
    n_models
        Models of the first method, each of a bootstrap sample of the cells, whose differences are shown.
    config
        Of every fit.
    rng
        Seed, numpy Generator or None.
    device
        As in `fit`.
    key_added
        Key of ``uns`` to write.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.uns[key_added]`` : dict
        ``verdict`` ("none", "weak" or "good") and ``rule``, by which it was found; ``share``, ``share_low`` and
        ``share_high``, the headline: how much of the way from a copy of the time before to a fresh sample the first
        method covers at the times left out, with its 95 % interval (`thalweg.flows.share`); ``evidence``, a DataFrame
        with ``check``, ``level`` ("good", "doubt", "bad" or "missing"), ``value``, ``says`` and ``advice``; ``scores``,
        the table of `leave_one_out`; ``methods``, ``n_cells``, ``time_key`` and ``use_rep``.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If the cells cannot be read as a course, or an argument cannot be used.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.simulated(rng=0)
    >>> tw.tl.assess(adata, "time")
    >>> adata.uns["assessment"]["verdict"]
    'good'
    """
    _check(methods, n_cells, n_models)
    generator = resolve_rng(rng)
    recipe = Recipe(
        time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key, replicate_key=replicate_key,
        baseline=baseline, couple_within=couple_within,
    )  # fmt: skip
    cells = read_course(adata, recipe)
    course = _Course(adata, cells, recipe, some(cells, n_cells, generator), methods, n_models, config, device)
    evidence = [*data.data_evidence(adata, cells, time_key), data.movement(cells, generator)]
    evidence.append(data.replicates(cells, generator))
    seed = int(generator.integers(2**31))
    scores, way = course.scores(seed)
    evidence += course.predictions(scores, way) + course.fits(seed)
    found: dict[str, Any] = {"verdict": conclude(evidence, way), "rule": RULE}
    found |= dict(zip(("share", "share_low", "share_high"), way or (np.nan,) * 3, strict=True))
    found |= {"evidence": pd.DataFrame(evidence), "methods": list(methods), "n_cells": n_cells, "time_key": time_key}
    found |= {"use_rep": cells.use_rep, "scores": pd.DataFrame() if scores is None else scores}
    out = writable(adata, copy)
    out.uns[key_added] = found
    logger.info("added uns[%r]: the verdict is %r", key_added, found["verdict"])
    return out if copy else None


def _check(methods: Sequence[str], n_cells: int, n_models: int) -> None:
    if len(methods) != 2 or methods[0] == methods[1]:
        raise InputError(f"methods must be two different names of tw.tl.fit, found {methods!r}.")
    for name, value in (("n_cells", n_cells), ("n_models", n_models)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, found {value!r}.")


@dataclass(frozen=True)
class _Course:
    """A course, the rows that are fitted, and how."""

    adata: AnnData
    cells: Cells
    recipe: Recipe
    rows: NDArray[np.int64]
    methods: Sequence[str]
    n_models: int
    config: FitConfig | None
    device: str

    def small(self) -> AnnData:
        """The rows that are fitted."""
        return part(self.adata, self.cells, self.recipe, self.rows)

    def keys(self) -> dict[str, Any]:
        """Options of a fit of these rows."""
        return keys(self.cells, self.recipe) | {"config": self.config, "device": self.device}

    def scores(self, seed: int) -> tuple[pd.DataFrame | None, Way | None]:
        """The table of times left out and the share of the first method; None for a course of two times."""
        if len(self.cells.times) < 3:
            return None, None
        options = self.keys() | {"replicate_key": None}  # the rule was set for intervals over cells
        scores = leave_one_out(self.small(), TIME, methods=self.methods, n_seeds=1, rng=seed, **options)
        return scores, way_of(scores, self.methods[0])

    def predictions(self, scores: pd.DataFrame | None, way: Way | None) -> list[Evidence]:
        """Evidence of times left out."""
        out = [fits.left_out(scores, way, self.methods[0])]
        if scores is not None and way is not None and not np.isnan(way.share):
            out.append(fits.beside_middle(way, way_of(scores, "ot-midpoint")))
        return out

    def fits(self, seed: int) -> list[Evidence]:
        """Evidence of fits to the whole course."""
        fitted = self.small(), self.small()
        for adata, method, key, n in zip(fitted, self.methods, _KEYS, (self.n_models, 1), strict=True):
            fit(adata, TIME, method=method, n_models=n, resample=n > 1, rng=seed, key_added=key, **self.keys())
            velocity(adata, key=key)
        first = fitted[0]
        names = (self.methods[0], self.methods[1])
        out = [
            fits.reconstruction(first.uns[_KEYS[0]]["reconstruction"]),
            fits.agreement(*fitted, names, _VELOCITY),
            fits.members(first, _VELOCITY, self.n_models),
            fits.rna_velocity(self.adata, first, self.rows, _VELOCITY),
            fits.growth(first, TIME),
            fits.effective_cells(self._weights(first)),
        ]
        return [one for one in out if one is not None]

    def _weights(self, fitted: AnnData) -> NDArray[np.float64]:
        """Weights of the cells predicted in the middle of the longest interval."""
        times = self.cells.times
        k = int(np.diff(times).argmax())
        there = interpolate(fitted, float(times[k : k + 2].mean()), key=_KEYS[0])
        weights: NDArray[np.float64] = there.obs["weight"].to_numpy()
        return weights
