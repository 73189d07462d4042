"""What the cells themselves say, before any fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.data.cells import Cells
from thalweg.data.gene_scores import gene_set, score
from thalweg.data.remarks import Remark, remarks
from thalweg.errors import ThalwegError
from thalweg.flows.moves import SIGNIFICANT, moves
from thalweg.flows.replicates import apart
from thalweg.tl._trust.verdict import Evidence, Level

if TYPE_CHECKING:
    from anndata import AnnData

_LEVELS: dict[str, Level] = {
    "counts": "bad",
    "genes": "bad",
    "batches": "doubt",
    "few cells": "doubt",
    "weights": "doubt",
    "names": "doubt",
}
_FEW_COMPONENTS, _CYCLE, _KNOWN = 5, 0.6, 0.25


def data_evidence(adata: AnnData, cells: Cells, time_key: str) -> list[Evidence]:
    """Remarks on the cells, their components and their cell cycle."""
    found = remarks(
        adata, cells.use_rep, cells.x[: adata.n_obs], time_key, cells.time[: adata.n_obs], cells.populations()
    )
    out = [_remark(one) for one in found]
    if not found:
        counts = [len(cells.rows(t)) for t in cells.times]
        few, many = min(counts), max(counts)
        size = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        says = f"{len(counts)} times of {size} cells, and nothing odd about them"
        out.append(Evidence("data", "good", float(min(counts)), says))
    if cells.n_dims < _FEW_COMPONENTS:
        out.append(
            Evidence(
                "components", "doubt", cells.n_dims,
                f"{cells.use_rep} has {cells.n_dims} components; what differs in others is not seen",
                "Use ten to fifty principal components, unless the system has no more.",
            )
        )  # fmt: skip
    return [*out, _cell_cycle(adata, cells)]


def movement(cells: Cells, rng: np.random.Generator) -> Evidence:
    """Whether the populations differ from time to time."""
    found = moves(cells, rng)
    if np.isnan(found.p):
        says = "no two times have ten cells: too few to tell whether they differ"
        return Evidence("movement", "missing", found.p, says, "Measure more cells.")
    if found.p <= SIGNIFICANT:
        says = (
            f"populations differ from time to time, {found.z:.0f} sd more than with exchanged times (p = {found.p:.3f})"
        )
        return Evidence("movement", "good", found.p, says)
    return Evidence(
        "movement", "bad", found.p,
        f"with the times of cells exchanged at random, neighbouring populations are as far apart (p = {found.p:.2f}): "
        "nothing moves that these cells could show",
        "Check that the time labels belong to these cells. If they do, draw no trajectory from them.",
    )  # fmt: skip


def replicates(cells: Cells, rng: np.random.Generator) -> Evidence:
    """Whether replicates of a time are nearer to each other than neighbouring times."""
    if cells.replicate is None:
        return Evidence("replicates", "missing", np.nan, "none were named (replicate_key)")
    found = apart(cells, rng)
    if np.isnan(found.replicates):
        says = "no time has two: how far another experiment would differ is not known"
        return Evidence("replicates", "missing", np.nan, says, "Measure a second replicate of each time.")
    ratio = found.replicates / max(found.times, 1e-300)
    says = f"replicates of a time are {max(ratio, 0):.0%} as far apart as neighbouring times (energy distance)"
    if ratio <= 1:
        return Evidence("replicates", "good", ratio, says)
    return Evidence("replicates", "bad", ratio, says, "Integrate the replicates, or fit each of them alone.")


def _remark(one: Remark) -> Evidence:
    says, _, advice = one.text.partition("; ")
    return Evidence("data", _LEVELS[one.kind], np.nan, f"{one.kind}: {says}", advice[:1].upper() + advice[1:])


def _cell_cycle(adata: AnnData, cells: Cells) -> Evidence:
    """Whether dividing cells lie along the first component."""
    genes = _proliferation(adata)
    if not genes:
        return Evidence("cell cycle", "missing", np.nan, "too few genes of cell division are among var_names to tell")
    try:
        scores = score(adata, genes, None)
    except ThalwegError as error:
        return Evidence("cell cycle", "missing", np.nan, f"it could not be scored ({error})")
    if not np.isfinite(scores).all() or scores.std() == 0:
        return Evidence("cell cycle", "missing", np.nan, "its score is not finite or the same in all cells")
    r = float(np.corrcoef(scores, cells.x[: len(scores), 0])[0, 1])
    if abs(r) < _CYCLE:
        return Evidence("cell cycle", "good", abs(r), f"it is not the main direction (correlation {abs(r):.2f})")
    return Evidence(
        "cell cycle", "doubt", abs(r),
        f"the first component is the score of cell division (correlation {abs(r):.2f}); flows may follow it",
        "Regress the cell cycle out, or leave its genes out of the components, and see whether the result stays.",
    )  # fmt: skip


def _proliferation(adata: AnnData) -> list[str]:
    """Genes of cell division that the cells have, in the spelling that fits; none where they are few."""
    names = set(adata.var_names)
    for organism in ("human", "mouse"):
        genes = gene_set("proliferation", organism)
        found = [next(g for g in synonyms if g in names) for synonyms in genes if names & set(synonyms)]
        if len(found) >= _KNOWN * len(genes):
            return found
    return []
