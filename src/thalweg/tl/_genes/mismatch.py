"""Why loadings, scores and expression do not belong together, found by trying what usually happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.data.expression import Columns, Floats, dense, expression_matrix

if TYPE_CHECKING:
    from anndata import AnnData

_LENGTH = 0.01  # by which the length of a loading may differ from one
_NO_SPREAD = 1e-3  # of the largest spread of a component
_LIKE = 0.2  # error of a component that still points to a cause; clipping after z-scoring leaves some


def component_error(found: Floats, expected: Floats) -> Floats:
    """Error of each component relative to its spread; a spread of rounding counts as what that rounding is of."""
    spread = np.sqrt(np.square(expected).mean(0))
    out: Floats = np.sqrt(np.square(found - expected).mean(0)) / np.maximum(spread, _NO_SPREAD * spread.max() or 1)
    return out


def reason(
    adata: AnnData,
    columns: Columns,
    loadings: Floats,
    sample: NDArray[np.int_],
    scores: Floats,
    params: Mapping[str, Any],
) -> str:
    """What is wrong and how to mend it.

    Parameters
    ----------
    adata
        The cells.
    columns, loadings
        Genes that the PCA used, and their loadings.
    sample, scores
        Rows of some cells, and their scores.
    params
        Parameters of the PCA in ``uns``.
    """
    lengths = np.sqrt(np.square(loadings).sum(0))
    if abs(lengths - 1).max() > _LENGTH:
        return (
            f"The loadings are not those of a PCA of these genes (lengths from {lengths.min():.2f} to "
            f"{lengths.max():.2f}, not 1): genes that it used were left out of adata, or the loadings were changed. "
            "Run sc.pp.pca again."
        )
    for x, sentence in _alternatives(adata, columns, sample):
        if component_error((x - x.mean(0)) @ loadings, scores - scores.mean(0)).max() <= _LIKE:
            return sentence
    mask = str(params.get("mask_var") or "highly_variable")
    if mask in adata.var and set(np.flatnonzero(adata.var[mask])) != set(columns.tolist()):
        return (
            f"var[{mask!r}] marks {int(adata.var[mask].sum())} genes, the loadings use {len(columns)} and not the same "
            "ones: the mask has changed since the PCA. Run sc.pp.pca again."
        )
    return "Expression and PCA are of different data or processing (another normalisation?): run sc.pp.pca again."


def _alternatives(adata: AnnData, columns: Columns, sample: NDArray[np.int_]) -> Iterator[tuple[Floats, str]]:
    """Expression of the sample as the PCA may have seen it, and what to say if so."""
    for name in adata.layers:
        yield dense(adata.layers[name][sample], columns), f"The PCA was made of layers[{name!r}]: pass layer={name!r}."
    raw, names = adata.raw, adata.var_names[columns]
    if raw is not None and names.isin(raw.var_names).all():
        x = dense(raw.X[sample], raw.var_names.get_indexer(names))
        yield x, "The PCA was made of adata.raw: copy it into a layer and pass layer=."
    x = dense(expression_matrix(adata)[sample], columns)
    sd = x.std(0, ddof=1)
    scaled = x / np.where(sd > 0, sd, 1)
    yield scaled, "The PCA was made of z-scored genes, these are not z-scored: run sc.pp.scale, or sc.pp.pca again."
    if (x >= 0).all():
        yield np.log1p(x), "The PCA was made of log1p of these values: run sc.pp.log1p, or sc.pp.pca again."
    if "std" in adata.var:
        unscaled = x * adata.var["std"].to_numpy(dtype=np.float64)[columns]
        yield unscaled, "The PCA was made before sc.pp.scale changed adata.X: run sc.pp.pca again, or pass layer=."
