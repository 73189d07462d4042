"""Scores of gene sets in each cell: the lists that come with the package, and how they are matched."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from thalweg._settings import logger
from thalweg.data.expression import expression_matrix
from thalweg.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

Organism = Literal["human", "mouse"]
ORGANISMS: tuple[Organism, ...] = ("human", "mouse")
SETS = ("proliferation", "apoptosis")
_FEW = 0.25  # share of a list below which its score is refused


def gene_set(name: str, organism: str) -> list[list[str]]:
    """A list of the package: for each gene its names, newest first."""
    text = (resources.files("thalweg.data") / "gene_sets" / f"{name}_{organism}.txt").read_text(encoding="utf-8")
    return [line.split("|") for line in text.splitlines() if line and not line.startswith("#")]


def find_organism(adata: AnnData, organism: Organism | None) -> Organism:
    """The organism given, or the one in whose spelling more genes of the lists are found, which is logged.

    Raises
    ------
    InputError
        If the name is unknown, or the gene names fit neither.
    """
    if organism is not None:
        if organism not in ORGANISMS:
            raise InputError(f"organism must be 'human', 'mouse' or None, found {organism!r}.")
        return organism
    found = {o: sum(len(_present(gene_set(s, o), adata)) for s in SETS) for o in ORGANISMS}
    best, other = sorted(ORGANISMS, key=lambda o: -found[o])
    if found[best] == found[other]:
        raise InputError(
            f"organism=None could not tell human (MKI67) from mouse (Mki67) by the case of adata.var_names (first: "
            f"{list(adata.var_names[:5])}); {found[best]} genes of each list occur. Give organism=, or your own "
            "proliferation= and apoptosis=; names must be gene symbols."
        )
    logger.info(
        "organism %r, by the case of the gene names (%d genes of its lists, %d of %s); organism= overrides it",
        best, found[best], found[other], other,
    )  # fmt: skip
    return best


def chosen_genes(adata: AnnData, name: str, own: Sequence[str] | None, organism: Organism | None) -> list[str]:
    """Genes of a set that the data have: the caller's own, or those of the package.

    Raises
    ------
    InputError
        If none is there, or fewer than a quarter of the package's own.
    """
    names = [[g] for g in own] if own is not None else gene_set(name, find_organism(adata, organism))
    present = _present(names, adata)
    if not present:
        raise InputError(
            f"none of the {len(names)} {name} genes ({', '.join(g[0] for g in names[:5])}, ...) is in adata.var_names "
            f"(first: {list(adata.var_names[:5])}); give {name}= with genes of yours, or check organism= and that "
            "names are gene symbols."
        )
    if own is None and len(present) < _FEW * len(names):
        raise InputError(
            f"{len(present)} of the {len(names)} {name} genes are in adata.var_names, fewer than a quarter; rates from "
            "so few say little. Score before selecting highly variable genes, or give the genes you trust: "
            f"{name}={present[:5]}."
        )
    logger.info("%s: %d of %d genes are in adata.var_names", name, len(present), len(names))
    return present


def _present(names: list[list[str]], adata: AnnData) -> list[str]:
    known = set(adata.var_names)
    return [found[0] for synonyms in names if (found := [g for g in synonyms if g in known])]


def score(adata: AnnData, genes: Sequence[str], layer: str | None) -> NDArray[np.float64]:
    """Score of scanpy (mean over the genes less that of control genes of like expression) of each cell.

    ``adata`` is not changed. All genes of like expression are controls, so that nothing is drawn: scanpy would draw
    from numpy's global generator.
    """
    import anndata
    import scanpy as sc

    matrix = expression_matrix(adata, layer)
    if adata.isbacked:
        matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix[:]
    cells = anndata.AnnData(matrix, var=adata.var[[]])
    sc.tl.score_genes(cells, list(genes), ctrl_size=cells.n_vars, score_name="score", use_raw=False, random_state=None)
    return cells.obs["score"].to_numpy(dtype=np.float64)
