r"""Genes and raw counts of a simulated experiment.

Counts of gene :math:`g` are negative binomial with the mean
:math:`\ell \exp(a_g + z \cdot w_g + \text{marker}_g(m_k(s)))`. The library size :math:`\ell` is log-normal. A marker
rises around the middle of its type and falls again. Genes of the response have a weight on its axis alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.datasets._blood_tree import N_LATENT, Array, Stretch, Tree

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

RESPONSE = ("ISG15", "IFI6", "IFIT1", "IFIT3", "MX1", "OAS1", "STAT1", "IFI44L", "IRF7", "XAF1")
_RISE = np.where(np.arange(len(RESPONSE)) % 2, -1.2, 1.2)  # every second gene falls
_WEIGHT, _MARKER, _REACH = 0.3, 2.5, 0.6  # of genes on an axis; height of a marker, and how far from its type it is on
_LIBRARY, _DISPERSION = 0.35, 0.2  # sd of log library size; variance is mean + dispersion mean^2


def draw_counts(
    z: Array, way: Array, tree: Tree, n_genes: int, genes: np.random.Generator, draws: np.random.Generator
) -> csr_matrix:
    """Draw the counts, (n, n_genes), of cells at ``z`` whose place without noise and shifts is ``way``, both (n, 11).

    Cells come in parts, since all means at once are many numbers.
    """
    from scipy.sparse import csr_matrix, vstack
    from scipy.spatial.distance import cdist

    types = tree.stretches()
    middles = tree.place(np.array([one.fates[0] for one in types]), np.array([(o.start + o.end) / 2 for o in types]))
    n_markers = sum(len(one.markers) for one in types)
    weights = _WEIGHT * genes.standard_normal((N_LATENT, n_genes))
    weights[:, :n_markers] *= 0.3  # a marker is of its type more than of an axis
    weights[-1] = 0.0
    weights[:, n_markers : n_markers + len(RESPONSE)] = 0.0
    weights[-1, n_markers : n_markers + len(RESPONSE)] = _RISE
    base = genes.normal(0.0, 1.0, n_genes)
    base[:n_markers] -= 1.0  # markers are off away from their type
    centre = np.r_[tree.last / 2, np.zeros(N_LATENT - 1)]
    parts = []
    for rows in np.array_split(np.arange(len(z)), -(-len(z) // 2000)):
        log_mean = base + (z[rows] - centre) @ weights
        near = np.exp(-cdist(way[rows], middles, "sqeuclidean") / (2 * _REACH**2))
        log_mean[:, :n_markers] += _MARKER * np.repeat(near, [len(one.markers) for one in types], axis=1)
        log_mean += _LIBRARY * draws.standard_normal((len(rows), 1))
        mean = np.exp(log_mean) * draws.gamma(1 / _DISPERSION, _DISPERSION, log_mean.shape)
        parts.append(csr_matrix(draws.poisson(mean).astype(np.float32)))
    return vstack(parts, format="csr")


def genes_frame(types: list[Stretch], n_genes: int, response: bool) -> pd.DataFrame:
    """Return the table of the genes: what each of them marks, and whether it answers to the knock-out."""
    import pandas as pd

    of = [(gene, number) for number, one in enumerate(types) for gene in one.markers]
    others = [f"LOC{100001 + i}" for i in range(n_genes - len(of) - len(RESPONSE))]
    code = np.array([number for _, number in of] + [-1] * (n_genes - len(of)))
    index = [*(gene for gene, _ in of), *RESPONSE, *others]
    marked = pd.Categorical.from_codes(code, [one.name for one in types])
    return pd.DataFrame({"marker_of": marked, "response": response & np.isin(index, RESPONSE)}, index=index)
