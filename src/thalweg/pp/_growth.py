"""`pp.growth`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.cells import read_course
from thalweg.data.expression import check_logged, expression_matrix
from thalweg.data.gene_scores import Organism, chosen_genes, find_organism, score
from thalweg.data.rates import offspring
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.times import TimeMap, parse_times
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.growth import BirthDeath, rates_from_plans, relative_offspring

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
_DIED_OUT, _DOUBLINGS = 0.01, 3.0  # of a population's size over a course; a day, at most


def growth(
    adata: AnnData,
    *,
    method: Literal["genes", "unbalanced"] = "genes",
    time_key: str | None = None,
    time_map: TimeMap | None = None,
    organism: Organism | None = None,
    proliferation: Sequence[str] | None = None,
    apoptosis: Sequence[str] | None = None,
    rates: BirthDeath | None = None,
    day: float = 1.0,
    layer: str | None = None,
    use_rep: str | None = None,
    n_dims: int | None = None,
    condition_key: Columns = None,
    baseline: Baseline = None,
    relaxation: float = 0.5,
    key_added: str = "growth",
    copy: bool = False,
) -> AnnData | None:
    r"""Growth rate of each cell, from its genes or from the data by unbalanced transport.

    ``method="genes"``: proliferation and apoptosis are scored with ``sc.tl.score_genes``, and logistic functions turn
    the scores into a birth and a death rate (Schiebinger et al. 2019, Waddington-OT; formula in `BirthDeath`). The gene
    lists are the cell-cycle programmes of Tirosh et al. (2016) and the hallmark set of apoptosis of MSigDB (Liberzon et
    al. 2015), in human and mouse symbols.

    ``method="unbalanced"``: between neighbouring times an unbalanced plan ``pi`` is solved (Chizat et al. 2018), and
    what a cell leaves at the next time is its share of what arrives there,

    .. math:: n_i = \frac{1}{a_i} \sum_j \pi_{ij} \frac{b_j}{(\pi^T 1)_j}, \qquad g_i = \frac{\log n_i}{\Delta t},

    with ``a, b`` the uniform weights of the two times. The mean of ``n`` is one: rates are relative to the growth of
    the whole population, which snapshots do not show. Growth and movement cannot be told apart from snapshots alone;
    ``relaxation`` says how dear growth is.

    Parameters
    ----------
    adata
        Cells; for ``"genes"`` with log-normalised expression.
    method
        ``"genes"`` or ``"unbalanced"``.
    time_key, time_map
        Times. Needed by ``"unbalanced"``; with ``"genes"`` they give the weights, too.
    organism
        ``"human"`` or ``"mouse"``; by default told by the case of the gene names, and the log says which.
    proliferation, apoptosis
        Genes to score instead of the package's lists.
    rates
        Parameters of birth and death, per day.
    day
        A day in units of ``obs[time_key]``, e.g. 24 for hours: rates per day become rates per unit of time.
    layer
        Layer with log-normalised expression; ``X`` by default.
    use_rep, n_dims, condition_key, baseline
        Of the plans, as in ``tl.fit``; plans are within conditions.
    relaxation
        Weight of the populations' sizes in the plan, as a multiple of the mean squared displacement of balanced
        transport; small values let cells grow and vanish rather than move.
    key_added
        Name of the column.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : float
        Growth rate per unit of time (natural logarithm): the number of descendants after ``dt`` is ``exp(rate dt)``.
        Give it to ``tl.fit`` as ``growth_key``. With ``"unbalanced"`` cells of a last time have NaN.
    ``adata.obs[key_added + "_weight"]`` : float, with ``time_key``
        Descendants at the next observed time relative to those of the average cell of the same time, ``exp(rate dt)``
        over its mean; 1 for cells of a last time. A valid ``weight_key`` for whatever weighs cells as sources.
    ``adata.obs["proliferation_score"]``, ``adata.obs["apoptosis_score"]`` : float, with ``"genes"``
        The scores.
    ``adata.uns[key_added]`` : dict
        Method, parameters, and the genes used.

    Raises
    ------
    MissingKeyError
        If a key does not exist.
    InputError
        If no gene of a list is found, or fewer than a quarter of one of the package's; if the organism cannot be told,
        the expression is not log-transformed, the rates are impossible (with ``time_key``: the population would die
        out, or double more often than every eight hours), or values cannot be used.
    NotConvergedError
        If a plan does not reach its tolerance.
    """
    _check_options(method, day)
    if method == "genes":
        own = {"proliferation": proliferation, "apoptosis": apoptosis}
        scores, genes = _scores(adata, own, organism, layer)
        constants = rates or BirthDeath()
        rate = constants.growth(scores["proliferation_score"], scores["apoptosis_score"]) / day
        record: dict[str, Any] = {"day": day, "rates": asdict(constants)} | genes
        dt = None if time_key is None else _until_next(parse_times(adata, time_key, time_map))
    else:
        if time_key is None:
            raise InputError("method='unbalanced' needs time_key: it compares neighbouring times.")
        recipe = Recipe(time_key, use_rep, n_dims, time_map, condition_key, baseline=baseline)
        cells = read_course(adata, recipe)
        rate, dt = (cells.merged(values) for values in rates_from_plans(cells, relaxation))
        scores, record = {}, {"use_rep": cells.use_rep, "relaxation": relaxation}
    columns = {key_added: rate} | scores
    if dt is not None and method == "genes":
        _check_possible(rate, dt, parse_times(adata, str(time_key), time_map), day)
    if dt is not None:
        columns[f"{key_added}_weight"] = relative_offspring(rate, dt, parse_times(adata, str(time_key), time_map))
    out = writable(adata, copy)
    for name, values in columns.items():
        out.obs[name] = values
    out.uns[key_added] = {"method": method, "time_key": time_key or ""} | record
    logger.info("added obs: %s; uns[%r]", ", ".join(map(repr, columns)), key_added)
    return out if copy else None


def _scores(
    adata: AnnData, own: dict[str, Sequence[str] | None], organism: Organism | None, layer: str | None
) -> tuple[dict[str, Floats], dict[str, NDArray[np.str_]]]:
    """Scores by name of their column, and the genes behind them."""
    if any(given is None for given in own.values()):
        organism = find_organism(adata, organism)
    check_logged(expression_matrix(adata, layer))
    scores, genes = {}, {}
    for name, given in own.items():
        chosen = chosen_genes(adata, name, given, organism)
        values = score(adata, chosen, layer)
        if not np.isfinite(values).all():
            raise InputError(
                f"the {name} score of {int((~np.isfinite(values)).sum())} cells is NaN or infinite; the expression "
                "must be finite and log-normalised (sc.pp.normalize_total, sc.pp.log1p)."
            )
        scores[f"{name}_score"], genes[f"{name}_genes"] = values, np.array(chosen, dtype=str)
    return scores, genes


def _check_options(method: str, day: float) -> None:
    if method not in ("genes", "unbalanced"):
        raise InputError(f"method must be 'genes' or 'unbalanced', found {method!r}.")
    if not 0 < day < np.inf:
        raise InputError(f"day must be positive, the length of a day in units of the times; found {day!r}.")


def _check_possible(rate: Floats, dt: Floats, time: Floats, day: float) -> None:
    """Say how much the population grows by these rates, and refuse what cannot be.

    Raises
    ------
    InputError
        If it dies out, or doubles more often than every eight hours.
    """
    grown = [offspring(rate[rows], dt[rows]).mean() for t in np.unique(time)[:-1] if (rows := time == t).any()]
    total, length = float(np.prod(grown)), float(np.ptp(time))
    says = f"these rates multiply the population by {total:.3g} from time {time.min():g} to {time.max():g}"
    if not _DIED_OUT <= total <= 2 ** (_DOUBLINGS * length / day):
        raise InputError(
            f"{says}, which cannot be: it would have died out, or doubled more often than every eight hours. Scores of "
            "genes are not rates by themselves; give constants that fit your cells, rates=tw.pp.BirthDeath(...), or "
            'use method="unbalanced".'
        )
    logger.info("%s; growth that all cells share moves no proportion, so only differences between cells count", says)


def _until_next(time: Floats) -> Floats:
    """Time from each cell to the next observed time; NaN at the last."""
    times = np.unique(time)
    gaps = np.append(np.diff(times), np.nan)
    out: Floats = gaps[np.searchsorted(times, time)]
    return out
