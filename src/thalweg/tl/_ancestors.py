"""`tl.ancestors`: where a set of cells came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.data.selection import Selection
from thalweg.tl._transitions.lineage import follow

if TYPE_CHECKING:
    from anndata import AnnData


def ancestors(
    adata: AnnData,
    cells: Selection,
    time: float | None = None,
    *,
    source_time: float | None = None,
    key: str = "transition",
    key_added: str = "ancestors",
    copy: bool = False,
) -> AnnData | None:
    """Carry a set of cells back along the couplings, to its ancestors.

    By Bayes, with the weights of the earlier cells as the prior. A cell of the set that nothing arrives at has no
    ancestors and does not take part; the share of such cells is logged.

    Parameters
    ----------
    adata, cells, source_time, key, copy
        As in `descendants`.
    time
        Earlier observed time; by default all earlier ones.
    key_added
        Column of ``obs`` and key of ``uns`` to write.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : float
        At each time the probability that a random ancestor is this cell, summing to one; at the time of the set the
        weights of its cells, zero for the other cells; NaN at times not asked for.
    ``adata.uns[key_added]`` : dict
        ``source_time``, ``times``, and for each time the ``mass`` of the set that has ancestors, as a share of the
        population.

    Raises
    ------
    MissingKeyError
        If there are no couplings, or a cell or column does not exist.
    InputError
        If ``cells`` lie at several times and ``source_time`` is not given, no couplings come from ``time``, or nothing
        arrives at any of the cells.
    """
    return follow(adata, cells, time, source_time, key, key_added, copy, direction="backward")
