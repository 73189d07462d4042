r"""An experiment with a known answer: two arms with one baseline day, replicates, and a knock-out that moves a fate.

Day :math:`d` of replicate :math:`r` in arm :math:`a` has cells with a fate :math:`k`, drawn by the shares
:math:`\pi_{ar}`, and a progress :math:`s = d + \tau`. The lag :math:`\tau` is between -1 and 1 day: a Beta(3, 3) law,
standard deviation 0.38. A cell is at

.. math:: z = m_k(s) + \beta_r + h_{ad} + \epsilon, \qquad \epsilon \sim N(0, 0.2^2 I),

with the way :math:`m_k` of `thalweg.datasets._blood_tree`, the shift :math:`\beta_r` of the replicate, the same on all
days and in both arms, and the response :math:`h`, which is 1 on the last axis in the knock-out from the onset on.

The shares of a replicate are of a Dirichlet law around those of its arm, so that the number of its cells in a fate is
beta-binomial. Its concentration is :math:`p (1 - p) / \sigma^2 - 1` for the mean share :math:`p` of the affected fate
and its standard deviation :math:`\sigma`.

The lag is what makes the onset exact. No cell of a day before the onset has come to the fork of the two fates that the
knock-out moves, so that both arms have one law there. Cells of the last day have all come to an end of the tree.
Counts are drawn by `thalweg.datasets._experiment_counts`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg._random import Rng, resolve_rng
from thalweg.datasets._blood_tree import AFFECTED, MEAN_SHARES, N_LATENT, PAIR, SIDES, SISTER, Array, Stretch, Tree
from thalweg.datasets._experiment_counts import RESPONSE, draw_counts, genes_frame
from thalweg.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ARMS = ("baseline", "control", "knock-out")
CONTROL, KNOCK_OUT = 1, 2
LAG = 3.0  # of the Beta law
NOISE = 0.2  # around the way of a cell, in each latent coordinate


class _Cells(NamedTuple):
    """Cells in the order of days, arms and replicates; ``way`` is their place without noise and shifts."""

    day: NDArray[np.int64]
    arm: NDArray[np.int64]
    replicate: NDArray[np.int64]
    fate: NDArray[np.int64]
    progress: Array
    way: Array
    z: Array


def experiment(
    *,
    n_cells: int = 1000,
    n_genes: int = 300,
    share: float = 0.30,
    shifted: float = 0.15,
    replicate_spread: float = 0.03,
    batch_shift: float = 0.5,
    onset: int = 3,
    n_days: int = 6,
    n_replicates: int = 3,
    response: bool = True,
    counts: bool = True,
    rng: Rng = None,
    random_state: Rng = None,
) -> AnnData:
    """Simulate an experiment with a shared baseline day, replicates, two arms, and a knock-out of known effect.

    Blood progenitors become one of five kinds of cells. On day 0 nothing has been done to them: these cells are the
    baseline of both arms. In the control a share of the cells becomes neutrophils. In the knock-out fewer do, and the
    others become monocytes. The two fates part at the onset: before it the arms do not differ but by chance.
    ``experiment(shifted=0.30, response=False)`` is an experiment without any effect.

    Parameters
    ----------
    n_cells
        Cells of each replicate on each day of each arm, at least 2: 33,000 in all by default.
    n_genes
        Genes, at least 110: five markers of each type and ten of the response. The others follow the differentiation.
    share, shifted
        Mean share of the affected fate in the control and in the knock-out, between 0 and 0.6. It and its sister are
        0.6 of the cells; the other three fates keep their mean shares.
    replicate_spread
        Standard deviation of the share of the affected fate over replicates, 0 for none. Each replicate of each arm has
        shares of its own, from a Dirichlet law; it keeps them on all days.
    batch_shift
        Length of the shift of each replicate in latent space, where an undecided cell moves by 1 in a day. Its
        direction is random. Both arms and the baseline have the same shifts.
    onset
        Day of the knock-out's onset, from 1 to ``n_days - 3``.
    n_days
        Days, at least 4.
    n_replicates
        Replicates, at least 1.
    response
        Whether ten genes answer to the knock-out, from its onset on and in all cells: half rise, half fall, by 1.2 on
        the natural log scale. Without it, they are there and do not answer.
    counts
        Draw raw counts. Without them X is None, and the rest is the same for the same integer ``rng``.
    rng
        Seed, numpy Generator, or None for fresh entropy.
    random_state
        Another name for ``rng``.

    Returns
    -------
    AnnData
        X raw counts, float32 CSR (n, n_genes), and

        - ``obs["day"]`` category, "D0", "D1", ...; ``obs["time"]`` float, the same as a number
        - ``obs["condition"]`` category: "baseline" on day 0 and on no other, "control", "knock-out"
        - ``obs["replicate"]`` category, "r1", "r2", ...
        - ``obs["cell_type"]`` category of twenty types in developmental order; cells of the last day have one of the
          last types of the five branches
        - ``obs["pseudotime"]`` float, progress in days, less than a day from that of the cell's day
        - ``obsm["X_latent"]`` float32 (n, 11): progress, four forks, five fates and the response, with noise and shifts
        - ``var["marker_of"]`` category, the type that the gene marks, else missing; ``var["response"]`` bool, whether
          the gene answers to the knock-out
        - ``uns["truth"]``: ``"onset"`` and ``"onset_day"``; ``"fate"`` and ``"sister"``, names of types; ``"share"``
          and ``"shifted"``; ``"shares"``, DataFrame of what was drawn, with ``"condition"``, ``"replicate"`` and a
          column for each fate; ``"response_genes"``, names, none without a response; ``"tree"``, DataFrame of the types
          with ``"parent"`` (empty for the first), ``"start"`` and ``"end"`` in days of progress; ``"batch_shifts"``
          float64 (n_replicates, 11)

    Raises
    ------
    InputError
        If an argument is out of the ranges above, or the spread too large for a share.
    TypeError
        If both ``rng`` and ``random_state`` are given.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.experiment(n_cells=200, rng=0)
    >>> adata.uns["truth"]["shares"]
    """
    from anndata import AnnData

    _check_numbers(n_cells, n_genes, onset, n_days, n_replicates)
    _check_sizes(share, shifted, replicate_spread, batch_shift)
    shares_rng, shifts_rng, cells_rng, genes_rng, counts_rng = resolve_rng(rng, random_state).spawn(5)
    tree = Tree(float(onset), n_days - 1.0)
    shares = np.stack(
        [_shares(mean, replicate_spread, n_replicates, shares_rng) for mean in (None, share, shifted)]
    )  # (arm, replicate, fate)
    shifts = shifts_rng.standard_normal((n_replicates, N_LATENT))
    shifts *= batch_shift / np.linalg.norm(shifts, axis=1, keepdims=True)
    cells = _draw_cells(tree, shares, shifts, n_cells, response, cells_rng)
    types = tree.stretches()
    x = draw_counts(cells.z, cells.way, tree, n_genes, genes_rng, counts_rng) if counts else None
    adata = AnnData(x, obs=_obs(cells, tree, n_days, n_replicates), var=genes_frame(types, n_genes, response))
    adata.obsm["X_latent"] = cells.z.astype(np.float32)
    adata.uns["truth"] = {
        "onset": float(onset),
        "onset_day": f"D{onset}",
        "fate": _ends(types)[AFFECTED],
        "sister": _ends(types)[SISTER],
        "share": float(share),
        "shifted": float(shifted),
        "shares": _shares_frame(shares, types),
        "response_genes": np.array(RESPONSE if response else (), dtype=object),
        "tree": _tree_frame(types),
        "batch_shifts": shifts,
    }
    return adata


def _shares(mean: float | None, spread: float, n_replicates: int, rng: np.random.Generator) -> Array:
    """Draw the shares of the fates in each replicate, (n_replicates, 5); those of no arm, the baseline, do not vary."""
    means = np.array(MEAN_SHARES)
    if mean is not None:
        means[[AFFECTED, SISTER]] = mean, PAIR - mean
    if mean is None or spread == 0:
        return np.tile(means, (n_replicates, 1))
    return rng.dirichlet(means * (mean * (1 - mean) / spread**2 - 1), n_replicates)


def _draw_cells(
    tree: Tree, shares: Array, shifts: Array, n_cells: int, response: bool, rng: np.random.Generator
) -> _Cells:
    """Draw all cells, group by group."""
    days, replicates = range(int(tree.last) + 1), range(len(shifts))
    groups = [(d, a, r) for d in days for a in ((CONTROL, KNOCK_OUT) if d else (0,)) for r in replicates]
    day, arm, replicate = np.repeat(np.array(groups), n_cells, axis=0).T
    fate = np.concatenate([rng.choice(len(SIDES), n_cells, p=shares[a, r]) for _, a, r in groups])
    progress = day + 2.0 * rng.beta(LAG, LAG, len(day)) - 1.0
    way = tree.place(fate, progress)
    z = way + shifts[replicate] + NOISE * rng.standard_normal(way.shape)
    if response:
        z[:, -1] += (arm == KNOCK_OUT) & (day >= tree.onset)
    return _Cells(day, arm, replicate, fate, progress, way, z)


def _obs(cells: _Cells, tree: Tree, n_days: int, n_replicates: int) -> pd.DataFrame:
    import pandas as pd

    names = [one.name for one in tree.stretches()]
    return pd.DataFrame(
        {
            "day": pd.Categorical.from_codes(cells.day, [f"D{d}" for d in range(n_days)]),
            "time": cells.day.astype(np.float64),
            "condition": pd.Categorical.from_codes(cells.arm, list(ARMS)),
            "replicate": pd.Categorical.from_codes(cells.replicate, [f"r{r + 1}" for r in range(n_replicates)]),
            "cell_type": pd.Categorical.from_codes(tree.types(cells.fate, cells.progress), names),
            "pseudotime": cells.progress,
        },
        index=[f"cell_{i}" for i in range(len(cells.day))],
    )


def _ends(types: list[Stretch]) -> list[str]:
    """Names of the last type of each fate."""
    return [[one.name for one in types if fate in one.fates][-1] for fate in range(len(SIDES))]


def _shares_frame(shares: Array, types: list[Stretch]) -> pd.DataFrame:
    import pandas as pd

    _, n_replicates, _ = shares.shape
    frame = pd.DataFrame(shares[1:].reshape(-1, len(SIDES)), columns=_ends(types))
    frame.insert(0, "condition", np.repeat(ARMS[1:], n_replicates))
    frame.insert(1, "replicate", [f"r{r + 1}" for r in range(n_replicates)] * 2)
    frame.index = frame.index.astype(str)
    return frame


def _tree_frame(types: list[Stretch]) -> pd.DataFrame:
    import pandas as pd

    columns = {name: [getattr(one, name) for one in types] for name in ("parent", "start", "end")}
    return pd.DataFrame(columns, index=[one.name for one in types])


def _check_numbers(n_cells: int, n_genes: int, onset: int, n_days: int, n_replicates: int) -> None:
    least = {
        "n_cells": (n_cells, 2),
        "n_genes": (n_genes, 110),
        "n_days": (n_days, 4),
        "n_replicates": (n_replicates, 1),
    }
    for name, (value, low) in (least | {"onset": (onset, 1)}).items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            raise InputError(f"{name} must be an integer from {low} on; found {value!r}")
    if onset > n_days - 3:
        raise InputError(
            f"onset={onset} leaves no two days after it for the fates to part: with n_days={n_days} give an onset up "
            f"to {n_days - 3}, or raise n_days to {onset + 3}"
        )


def _check_sizes(share: float, shifted: float, replicate_spread: float, batch_shift: float) -> None:
    for name, value in {"share": share, "shifted": shifted}.items():
        if not 0 < value < PAIR:
            raise InputError(f"{name} must lie between 0 and {PAIR:g}, the part of the two fates; found {value!r}")
    for name, value in {"replicate_spread": replicate_spread, "batch_shift": batch_shift}.items():
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be a finite number from 0 on; found {value!r}")
    for name, value in {"share": share, "shifted": shifted}.items():
        if replicate_spread >= (largest := math.sqrt(value * (1 - value))):
            raise InputError(
                f"replicate_spread={replicate_spread} is too large for {name}={value}: stay below {largest:.3g}"
            )
