r"""Predicted populations: where cells are expected, or cells with the noise they have.

The *mean* is for scores. Where a cell will be is known up to noise, and the Wasserstein distance of a prediction is
least where the noise is left out: in many dimensions it rewards a narrow cloud. Each predicted cell moves towards the
mean ``m`` of its neighbours in the predicted cloud,

.. math:: x \leftarrow x - \rho^{1/3} (x - m), \qquad \rho = \frac{E |x - m|^2}{E |x - E x|^2}.

In few dimensions neighbours are close, ``rho`` is small and hardly a cell moves; in fifty the noise of a cell is most
of what there is.

The *sample* is for eyes, and for what needs the spread of single cells: the cells as the SDE of a bridge carries them
where the prediction has one, otherwise with Gaussian noise of the covariance that is missing
(`thalweg.flows.dispersion`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.core.neighbours import Neighbours
from thalweg.data.cells import Cells
from thalweg.flows.carry import Carrier, Cloud
from thalweg.flows.dispersion import disperse_cloud

Floats = NDArray[np.float64]
Prediction = Literal["mean", "sample"]
_NEIGHBOURS = 60
_ROWS = 2048  # cells whose neighbours are gathered at once


def expected(cloud: Cloud, cells: Cells) -> Cloud:
    """The cloud with its noise left out, within each condition."""
    x, labels = cloud.x.copy(), cells.condition[cloud.rows]
    for condition in np.unique(labels).tolist():
        own = np.flatnonzero((labels == condition) & (cloud.weight > 0))
        if len(own) > 1:
            x[own] = _narrowed(cloud.x[own], cloud.weight[own])
    return replace(cloud, x=x)


def sample(carrier: Carrier, cloud: Cloud, time: float, rng: np.random.Generator) -> Cloud:
    """The cloud with the noise of its cells; as it is where the SDE has carried it."""
    if carrier.noise is not None:
        return cloud
    return replace(cloud, x=disperse_cloud(cloud, carrier.cells, carrier.flow.axis, time, rng))


def _narrowed(x: Floats, weight: Floats) -> Floats:
    share = weight / weight.sum()
    spread = float(share @ ((x - share @ x) ** 2).sum(1))
    if spread == 0:
        return x
    index, p = Neighbours(x, _NEIGHBOURS, weights=share)(x)
    away = np.concatenate(
        [
            x[i : i + _ROWS] - np.einsum("nk,nkd->nd", p[i : i + _ROWS], x[index[i : i + _ROWS]])
            for i in range(0, len(x), _ROWS)
        ]
    )
    out: Floats = x - np.cbrt(float(share @ (away**2).sum(1)) / spread) * away
    return out
