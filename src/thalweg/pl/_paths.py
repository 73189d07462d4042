"""Trajectories as `thalweg.tl.trajectories` returns them, put on an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.data.embedding import Embedding, read_embedding
from thalweg.errors import InputError
from thalweg.pl._cells import place

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """One trajectory.

    Attributes
    ----------
    rows
        Its rows in the AnnData, in the order of time.
    time
        Their times, shape ``(n,)``.
    xy
        Their places, shape ``(n, 2)``.
    """

    rows: NDArray[np.intp]
    time: Floats
    xy: Floats

    def at(self, times: Floats) -> Floats:
        """Places at other times, on straight lines between its own; NaN before it starts and after it ends."""
        order = slice(None) if self.time[0] <= self.time[-1] else slice(None, None, -1)
        columns = [np.interp(times, self.time[order], c, left=np.nan, right=np.nan) for c in self.xy[order].T]
        return np.stack(columns, axis=1)


def read_paths(
    adata: AnnData, trajectories: AnnData, basis: str | None, components: tuple[int, int]
) -> tuple[Embedding, list[Path]]:
    """The embedding of the real cells and every trajectory on it.

    Raises
    ------
    InputError
        If ``trajectories`` was not made by `thalweg.tl.trajectories`.
    MissingKeyError
        If the embedding does not exist.
    """
    if "trajectories" not in trajectories.uns:
        raise InputError(
            "trajectories.uns['trajectories'] does not exist; pass the AnnData that tw.tl.trajectories returned."
        )
    info = trajectories.uns["trajectories"]
    rep = str(info["use_rep"])
    embedding = read_embedding(adata, rep if basis is None else basis, components)
    xy = place(trajectories, adata, embedding, rep)
    time = trajectories.obs[str(info["time_key"])].to_numpy(dtype=np.float64)
    name = trajectories.obs["trajectory"].astype(str).to_numpy()
    order = np.lexsort((time, name))
    cuts = np.flatnonzero(name[order][1:] != name[order][:-1]) + 1
    return embedding, [Path(rows, time[rows], xy[rows]) for rows in np.split(order, cuts)]
