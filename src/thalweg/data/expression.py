"""Expression of genes: which matrix, which genes, read in blocks of cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg._memory import check_memory
from thalweg._settings import settings
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Columns = NDArray[np.intp]
ROWS = 4096  # cells made dense at once
_LOGGED = 30.0  # more than the natural logarithm, and the binary one, of any normalised count


def expression_matrix(adata: AnnData, layer: str | None = None) -> Any:
    """``adata.X`` or a layer, as it lies there (dense, sparse or backed).

    Raises
    ------
    MissingKeyError
        If there is no such layer.
    InputError
        If ``adata.X`` is None.
    """
    if layer is not None:
        if layer not in adata.layers:
            found = ", ".join(map(repr, adata.layers.keys())) or "none"
            raise MissingKeyError(f"layer={layer!r} is not in adata.layers; layers that exist: {found}.")
        return adata.layers[layer]
    if adata.X is None:
        raise InputError("adata.X is None, and expression is needed; give layer=, or an AnnData with genes.")
    return adata.X


def check_logged(matrix: Any) -> None:
    """Refuse expression that was not log-transformed, by a thousand of its cells.

    Raises
    ------
    InputError
        If they hold counts, or values that logarithms of normalised counts do not reach.
    """
    block = matrix[: min(matrix.shape[0], 1000)]
    values = np.asarray(getattr(block, "data", block) if hasattr(block, "toarray") else block)
    largest = float(values.max(initial=0.0))
    counts = largest > 1 and bool((values >= 0).all() and (values == np.rint(values)).all())
    if counts or largest > _LOGGED:
        found = "whole numbers only, as counts are" if counts else f"values up to {largest:.3g}"
        raise InputError(
            f"expression must be normalised and log-transformed, found {found}; run sc.pp.normalize_total(adata) and "
            "sc.pp.log1p(adata), or name the layer that is: layer=."
        )


def gene_columns(adata: AnnData, genes: str | Sequence[str]) -> Columns:
    """Columns of genes by name, in the order given.

    Raises
    ------
    MissingKeyError
        If a gene is not in ``adata.var_names``.
    InputError
        If none is given, one is given twice, or ``var_names`` has a name twice.
    """
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names or len(set(names)) < len(names):
        raise InputError(f"genes must name one or more genes, each once; found {names[:10]}.")
    columns = adata.var_names.get_indexer_for(names)
    if len(columns) != len(names):
        raise InputError("adata.var_names holds a name of genes twice; run adata.var_names_make_unique().")
    absent = [name for name, column in zip(names, columns, strict=True) if column < 0]
    if absent:
        by_case = {str(name).lower(): name for name in adata.var_names}
        near = [by_case[name.lower()] for name in absent if name.lower() in by_case]
        hint = f" Did you mean {near[:5]}?" if near else ""
        raise MissingKeyError(f"genes {absent[:10]} are not in adata.var_names ({len(absent)} in all).{hint}")
    out: Columns = columns
    return out


def row_blocks(matrix: Any, columns: Columns | slice, rows: int = ROWS) -> Iterator[Floats]:
    """Dense float64 blocks of rows of some columns, in order."""
    for start in range(0, matrix.shape[0], rows):
        yield dense(matrix[start : start + rows], columns)


def dense(block: Any, columns: Columns | slice) -> Floats:
    """Some columns of a matrix in memory as a dense float64 array."""
    part = block[:, columns]
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)


def read_expression(adata: AnnData, genes: str | Sequence[str], layer: str | None = None) -> Floats:
    """Expression of some genes, float64 of shape ``(n_cells, n_genes)``.

    Raises
    ------
    MissingKeyError
        If a gene or the layer does not exist.
    InputError
        If a value is NaN or infinite, or the genes cannot be read.
    MemoryBudgetError
        If the array would exceed ``thalweg.settings.max_memory``.
    """
    columns = gene_columns(adata, genes)
    check_memory("expression", adata.n_obs, len(columns), 8, settings.max_memory, "name fewer genes")
    out = np.concatenate([*row_blocks(expression_matrix(adata, layer), columns), np.empty((0, len(columns)))])
    bad = ~np.isfinite(out).all(0)
    if bad.any():
        raise InputError(
            f"gene {adata.var_names[columns[np.flatnonzero(bad)[0]]]!r} holds NaN or infinite values "
            f"({int(bad.sum())} such genes); leave it out of genes, or mend the expression."
        )
    return out
