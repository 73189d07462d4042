"""`tl.descendants`: what a set of cells becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thalweg.data.selection import Selection
from thalweg.tl._transitions.lineage import follow

if TYPE_CHECKING:
    from anndata import AnnData


def descendants(
    adata: AnnData,
    cells: Selection,
    time: float | None = None,
    *,
    source_time: float | None = None,
    key: str = "transition",
    key_added: str = "descendants",
    copy: bool = False,
) -> AnnData | None:
    """Carry a set of cells forward along the couplings, to its descendants.

    Parameters
    ----------
    adata
        AnnData with couplings, see `transition`.
    cells
        Cells of one observed time: names, a boolean mask, or a mapping from columns of ``obs`` to values, such as
        ``{"cell_type": "HSC"}``.
    time
        Later observed time; by default all later ones.
    source_time
        Observed time whose cells are meant, where ``cells`` selects cells of several.
    key
        Key of ``obsp`` with the couplings.
    key_added
        Column of ``obs`` and key of ``uns`` to write.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.obs[key_added]`` : float
        At each time reached the probability that a random descendant is this cell, summing to one; at the time of the
        set the weights of its cells, zero for the other cells; NaN at times not asked for.
    ``adata.uns[key_added]`` : dict
        ``source_time``, ``times``, and for each time the ``mass`` of the set as a share of the population: it changes
        with growth.

    Raises
    ------
    MissingKeyError
        If there are no couplings, or a cell or column does not exist.
    InputError
        If ``cells`` lie at several times and ``source_time`` is not given, or no couplings lead to ``time``.
    """
    return follow(adata, cells, time, source_time, key, key_added, copy, direction="forward")
