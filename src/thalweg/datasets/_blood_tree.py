r"""The tree of a simulated experiment: twenty cell types of the marrow, and the way of a cell through latent space.

A cell has a fate :math:`k`, one of five, and a progress :math:`s` in days. Fates part at four forks :math:`b_j`. The
fork of the affected fate and its sister is at the progress ``onset``; the others are at a third and at two thirds of
it. Before a fork, the cells on its two sides are at the same place:

.. math::
    m_k(s) = \bigl( s,\; R\, c_{kj}\, o(s - b_j),\; R\, o\bigl((s - d_k) / 2\bigr) \bigr), \qquad
    o(x) = 1 - e^{-x^2} \text{ for } x > 0, \text{ else } 0,

one axis for progress, one for each fork (:math:`c_{kj} = \pm 1` is the side that fate :math:`k` takes, and 0 if it
does not come by), one for each fate, which opens at the last fork :math:`d_k` before it. A last axis, the response to
the knock-out, is left to the caller. The unit is the way of an undecided cell in a day.

Types are stretches of branches. The types at the ends of the tree begin one day before the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RADIUS = 1.5
SIDES = np.array([[-1, 1, 0, 0], [-1, -1, 0, 0], [1, 0, -1, 0], [1, 0, 1, 1], [1, 0, 1, -1]])
AFFECTED, SISTER = 3, 4
MEAN_SHARES = (0.16, 0.10, 0.14, 0.30, 0.30)  # of the affected fate and its sister only the sum counts
PAIR = MEAN_SHARES[AFFECTED] + MEAN_SHARES[SISTER]
N_LATENT = 1 + SIDES.shape[1] + len(SIDES) + 1

# fates that pass, number of the knot where the stretch begins and ends, types in their order with five markers each
_STRETCHES: tuple[tuple[tuple[int, ...], int, int, dict[str, str]], ...] = (
    ((0, 1, 2, 3, 4), 0, 1, {
        "Hematopoietic stem cell, long-term, human": "CD34 AVP HLF CRHBP MLLT3",
        "Multipotent progenitor, human": "SPINK2 MDK NPR3 HOPX BEX1",
    }),
    ((0, 1), 1, 2, {"Megakaryocyte-erythroid progenitor, human": "GATA2 SLC40A1 CNRIP1 TAL1 ZFPM1"}),
    ((0,), 2, 4, {
        "Erythroid progenitor, burst-forming, human": "GATA1 EPOR KLF1 TFRC CA1",
        "Erythroblast, basophilic, human": "AHSP HBD ANK1 CA2 TFR2",
    }),
    ((0,), 4, 5, {"Erythroblast, orthochromatic, human": "HBB HBA1 ALAS2 GYPA SLC4A1"}),
    ((1,), 2, 4, {"Megakaryocyte progenitor, human": "ITGA2B FLI1 PLEK MPL SELP"}),
    ((1,), 4, 5, {"Megakaryocyte, mature, human": "PPBP PF4 GP9 TUBB1 GP1BA"}),
    ((2, 3, 4), 1, 2, {"Lymphoid-primed multipotent progenitor, human": "FLT3 SATB1 CD52 SELL LTB"}),
    ((2,), 2, 4, {
        "Common lymphoid progenitor, human": "DNTT IL7R JCHAIN ADA CYGB",
        "B-lymphocyte progenitor, pro-B, human": "VPREB1 IGLL1 RAG1 EBF1 PAX5",
    }),
    ((2,), 4, 5, {"B-lymphocyte precursor, pre-B, human": "CD79A CD79B MS4A1 CD19 TCL1A"}),
    ((3, 4), 2, 3, {
        "Myeloid-primed progenitor, early, human": "CEBPA IRF8 CLEC11A SUCNR1 TRH",
        "Granulocyte-monocyte progenitor, human": "MPO CTSG PRTN3 CSF3R NPDC1",
    }),
    ((3,), 3, 4, {
        "Neutrophil promyelocyte, human": "ELANE AZU1 DEFA4 MS4A3 CLC",
        "Neutrophil myelocyte, human": "LTF CAMP LCN2 CEACAM8 MMP8",
    }),
    ((3,), 4, 5, {"Neutrophil granulocyte, segmented, human": "FCGR3B CXCR2 MMP9 S100P MGAM"}),
    ((4,), 3, 4, {
        "Monoblast, bone marrow, human": "CSF1R SAMHD1 KLF4 ANXA2 RNASE2",
        "Promonocyte, bone marrow, human": "LYZ CST3 CPVL MNDA CTSS",
    }),
    ((4,), 4, 5, {"Monocyte, classical, human": "CD14 S100A12 VCAN FCN1 CSTA"}),
)  # fmt: skip


@dataclass(frozen=True)
class Stretch:
    """A cell type: the fates that pass through it, from where to where, its markers, and the type before it."""

    name: str
    fates: tuple[int, ...]
    start: float
    end: float
    markers: tuple[str, ...]
    parent: str


@dataclass(frozen=True)
class Tree:
    """The tree for an onset and a last day, both as numbers of days."""

    onset: float
    last: float

    @property
    def forks(self) -> Array:
        """Progress at the four forks, ``b_j``."""
        return self.onset * np.array([1.0, 2.0, 2.0, 3.0]) / 3.0

    def stretches(self) -> list[Stretch]:
        """Return the twenty types in developmental order."""
        knots = [-1.0, *np.unique(self.forks).tolist(), self.last - 1.0, self.last + 1.0]
        found: list[Stretch] = []
        for fates, first, after, types in _STRETCHES:
            edges = np.linspace(knots[first], knots[after], len(types) + 1).tolist()
            for (name, markers), start, end in zip(types.items(), edges, edges[1:], strict=False):
                before = [s.name for s in found if s.end == start and set(fates) <= set(s.fates)]
                parent = before[0] if before else ""
                found.append(Stretch(name, fates, start, end, tuple(markers.split()), parent))
        return found

    def place(self, fate: NDArray[np.int64], s: Array) -> Array:
        """Return ``m_k(s)`` of cells with fates ``k`` (n,) and progress ``s`` (n,), (n, 11); the response is 0."""
        sides, forks = SIDES[fate], self.forks
        decided = np.where(SIDES != 0, forks, 0.0).max(axis=1)[fate]
        z = np.zeros((len(s), N_LATENT))
        z[:, 0] = s
        z[:, 1:5] = RADIUS * sides * _opening(s[:, None] - forks)
        z[np.arange(len(s)), 5 + fate] = RADIUS * _opening((s - decided) / 2.0)
        return z

    def types(self, fate: NDArray[np.int64], s: Array) -> NDArray[np.int64]:
        """Return the number of the type of each cell, in the order of `stretches`."""
        found = np.full(len(s), -1)
        for number, one in enumerate(self.stretches()):
            found[(s >= one.start) & (s < one.end) & np.isin(fate, one.fates)] = number
        return found


def _opening(x: Array) -> Array:
    out: Array = -np.expm1(-(np.maximum(x, 0.0) ** 2))
    return out
