"""The table of `tl.terminal_states`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from thalweg.errors import MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData


def terminal_states_df(adata: AnnData, *, key: str = "terminal_state") -> pd.DataFrame:
    """Candidates for terminal states, written by `thalweg.tl.terminal_states`.

    Parameters
    ----------
    adata
        AnnData with terminal states.
    key
        The ``key_added`` of ``tl.terminal_states``.

    Returns
    -------
    A row for each candidate, terminal states first: ``state``, its name, empty for others; ``n_cells``, ``first_time``
    and ``last_time`` of its cells; ``stability``, the probability that a cell of it is in it still at the next observed
    time, or has died there, and its standard error ``se`` (NaN if fewer than ten cells were seen in it before its last
    time); ``inflow``, the share of its later cells that came from outside; ``apart``, the gap to the nearest other one
    in spreads of their cells; ``verdict``: ``"terminal"``, ``"cells leave"`` (the stability is low), ``"seen once"``
    (it is not known), ``"moves on"`` (the population still moves, and the candidate does not lie apart) or
    ``"not asked for"`` (by ``n_states``).

    Raises
    ------
    MissingKeyError
        If there are no terminal states under ``key``.
    """
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or "states" not in entry:
        raise MissingKeyError(f"uns[{key!r}] holds no terminal states; run tw.tl.terminal_states(adata) first.")
    out: pd.DataFrame = entry["states"].copy()
    return out
