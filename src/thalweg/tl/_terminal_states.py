"""`tl.terminal_states`: regions that cells enter and do not leave, for courses without labels."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.data.cells import Cells, Floats
from thalweg.data.entries import find_fit
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.carry import Carrier, make_noise
from thalweg.flows.store import Stored, load_fit
from thalweg.tl._fates.regions import (
    APART,
    Regions,
    Stability,
    Step,
    find_regions,
    find_stability,
    moves_on,
    table,
)
from thalweg.tl._stored.reading import cells_of
from thalweg.tl._transitions.blocks import FlowBlocks, plan_block

if TYPE_CHECKING:
    from anndata import AnnData

_SAMPLES, _NEIGHBORS, _TOP = 10, 15, 50  # as in `transition`


def terminal_states(
    adata: AnnData,
    *,
    key: str = "thalweg",
    n_states: int | None = None,
    min_stability: float = 0.7,
    kind: Literal["plan", "flow"] | None = None,
    n_draws: int = 50,
    key_added: str = "terminal_state",
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    r"""Find the regions in which cells end, without labels.

    Lineages end at the last time, or where cells die in place. The states of these cells are the candidates: Gaussian
    components, whose number is found by the BIC. A candidate is a terminal state if cells that are in it at one time
    are in it still at the next. Its *stability* is that probability, by the plans of ``"usb"`` and by the flow of other
    fits, the mean over cells and intervals (Lange et al., Nature Methods 2022, have the same of coarse-grained states).

    Every course has a front that no cell leaves, because nobody looked later. So where the whole population still moves
    at the end, at least half as fast as it ever did, a candidate counts only if it lies at least four spreads of its
    cells from every other one. A population that moves along as one has no terminal state, and the log says so.

    Name what was found, and ask which cells end there::

        tw.tl.terminal_states(adata)
        adata.obs["terminal_state"] = adata.obs["terminal_state"].cat.rename_categories({"1": "monocyte"})
        tw.tl.fate(adata, "terminal_state", absorbing=True)

    Parameters
    ----------
    adata
        AnnData with a fit.
    key
        Key of ``uns`` with the fit.
    n_states
        Take so many candidates, the most stable ones, whatever their stability. By default all that are stable.
    min_stability
        Stability from which a candidate is a terminal state, above 0 and at most 1. It is a probability for the time
        between two observations: the further these are apart, the lower it is.
    kind
        ``"plan"`` or ``"flow"``; by default the plans for ``"usb"``.
    n_draws
        Draws of the cells behind the standard errors, 2 or more.
    key_added
        Key of ``obs`` and ``uns`` to write.
    rng, random_state
        Seed of the draws, and of the SDE's noise.
    device
        Where to integrate.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : category
        ``"1"``, ``"2"``, ... by falling stability, for the cells of any time that are in a terminal state; missing for
        others.
    ``adata.obs[key_added + "_stability"]`` : float
        Stability of the cell's state; NaN for others.
    ``adata.uns[key_added]`` : dict
        What was done, and ``states``: every candidate, see `thalweg.get.terminal_states_df`.

    Raises
    ------
    MissingKeyError
        If there is no fit under ``key``.
    InputError
        If an option cannot be used, or there are fewer than ``n_states`` candidates whose stability is known.
    """
    _check(n_states, min_stability, n_draws)
    generator, stored = resolve_rng(rng, random_state), load_fit(find_fit(adata, key), key, device)
    along_plans = _along_plans(kind, stored)
    cells = stored.alive(cells_of(adata, stored))
    regions, moving = find_regions(cells), moves_on(cells)
    steps = _steps(stored, cells, along_plans, generator)
    found = find_stability(cells, regions, steps, n_draws, generator)
    verdicts = _verdicts(found, regions, moving, n_states, min_stability)
    terminal = [k for k in np.argsort(-np.nan_to_num(found.stay), kind="stable").tolist() if verdicts[k] == "terminal"]
    names = [str(terminal.index(k) + 1) if k in terminal else "" for k in range(len(verdicts))]
    out = writable(adata, copy)
    states = table(cells, regions, found, names, verdicts)
    _write(out, key_added, regions, found, terminal)
    out.uns[key_added] = {
        "key": key,
        "method": stored.method.name,
        "time_key": stored.recipe.time_key,
        "kind": "plan" if along_plans else "flow",
        "n_states": n_states or "found",
        "min_stability": min_stability,
        "n_draws": n_draws,
        "moves_on": moving,
        "states": states,
    }
    _remark(states, key_added)
    return out if copy else None


def _check(n_states: int | None, min_stability: float, n_draws: int) -> None:
    for name, value, least in (("n_states", 1 if n_states is None else n_states, 1), ("n_draws", n_draws, 2)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} must be a whole number from {least} on, found {value!r}.")
    if not 0 < min_stability <= 1:
        raise InputError(f"min_stability must be a probability above 0 and at most 1, found {min_stability!r}.")


def _along_plans(kind: str | None, stored: Stored) -> bool:
    if kind not in (None, "plan", "flow"):
        raise InputError(f"kind must be 'plan', 'flow' or None, found {kind!r}.")
    return stored.method.bridged if kind is None else kind == "plan"


def _steps(stored: Stored, cells: Cells, along_plans: bool, rng: np.random.Generator) -> list[Step]:
    """What the cells become at the next observed time of their condition."""
    noise = make_noise(stored.process, None, rng)
    make = FlowBlocks(Carrier(stored.process, cells, noise), _SAMPLES if noise else 1, _NEIGHBORS, None, _TOP)
    follows: dict[tuple[float, float], list[int]] = {}
    for condition in cells.strata:
        for pair in pairwise(cells.times_of(condition).tolist()):
            follows.setdefault(pair, []).append(condition)
    out = []
    for (t0, t1), conditions in follows.items():
        matrix = (plan_block(stored, cells, t0, t1) if along_plans else make(t0, t1)).matrix
        rows = np.concatenate([cells.rows(t0, condition) for condition in conditions])
        out.append(Step(rows, sparse.csr_matrix(matrix)[rows]))
    return out


def _verdicts(
    found: Stability, regions: Regions, moving: bool, n_states: int | None, min_stability: float
) -> list[str]:
    """Whether each region is a terminal state, or why it is none."""
    known = np.isfinite(found.stay)
    if n_states is not None:
        if n_states > known.sum():
            raise InputError(
                f"n_states={n_states}, but only {int(known.sum())} candidates have a known stability (ten cells or "
                "more before their last time); ask for fewer, or leave n_states out."
            )
        best = set(np.argsort(-np.where(known, found.stay, -1.0), kind="stable")[:n_states].tolist())
        return ["terminal" if k in best else "not asked for" for k in range(len(known))]
    out = []
    for k, stay in enumerate(found.stay.tolist()):
        if not known[k]:
            out.append("seen once")
        elif stay < min_stability:
            out.append("cells leave")
        elif moving and regions.apart[k] < APART:
            out.append("moves on")
        else:
            out.append("terminal")
    return out


def _write(out: AnnData, name: str, regions: Regions, found: Stability, terminal: list[int]) -> None:
    number = np.full(len(found.stay) + 1, -1)
    number[terminal] = np.arange(len(terminal))
    value: Floats = np.full(len(number), np.nan)
    value[terminal] = found.stay[terminal]
    names = pd.Index([str(i + 1) for i in range(len(terminal))], dtype=object)
    of = regions.of[: out.n_obs]  # the rows of the AnnData come first, before those that stand in further conditions
    out.obs[name] = pd.Categorical.from_codes(number[of], names)  # -1, no region, is the last entry
    out.obs[f"{name}_stability"] = value[of]
    out.uns.pop(f"{name}_colors", None)


def _remark(states: pd.DataFrame, name: str) -> None:
    verdicts = states["verdict"]
    terminal = states[verdicts == "terminal"]
    if len(terminal):
        said = ", ".join(
            f"{s} ({n} cells, stability {p:.2f} ± {e:.2f})"
            for s, n, p, e in zip(
                terminal["state"], terminal["n_cells"], terminal["stability"], terminal["se"], strict=True
            )
        )
        logger.info("added obs[%r]: terminal states %s", name, said)
    else:
        logger.warning(
            "no region holds its cells, so the course shows no terminal state: %s. obs[%r] is missing for every cell",
            ", ".join(f"{n} of {len(verdicts)} candidates {why!r}" for why, n in verdicts.value_counts().items()), name,
        )  # fmt: skip
    if (verdicts == "moves on").any():
        logger.warning(
            "the population still moves at the last time, so %d of the candidates may be mere fronts of the course, "
            "and are left out; a later time would tell",
            int((verdicts == "moves on").sum()),
        )  # fmt: skip
