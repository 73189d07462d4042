"""Two coordinates to draw cells by: an embedding by its name, and the velocity that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.data.representation import find_representation, read_representation
from thalweg.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Embedding:
    """Two columns of ``obsm[key]``.

    Attributes
    ----------
    key
        Key of ``obsm``.
    components
        The two columns.
    xy
        Their values, float64 of shape ``(n_cells, 2)``.
    """

    key: str
    components: tuple[int, int]
    xy: NDArray[np.float64]

    @property
    def labels(self) -> tuple[str, str]:
        """Names of the two axes, such as ``"PC 1"`` and ``"UMAP 2"``."""
        name = self.key.removeprefix("X_")
        shown = {"pca": "PC", "standardized": "standardized PC"}.get(name, name.upper())
        first, second = (f"{shown} {c + 1}" for c in self.components)
        return first, second


def read_embedding(adata: AnnData, basis: str | None = None, components: tuple[int, int] = (0, 1)) -> Embedding:
    """Coordinates to draw by.

    Parameters
    ----------
    adata
        Cells.
    basis
        Name of an embedding, with or without ``X_`` (``"umap"`` stands for ``obsm["X_umap"]``); by default the PCA that
        exists.
    components
        Two columns of it.

    Raises
    ------
    MissingKeyError
        If ``obsm`` has no such embedding.
    InputError
        If it has no such columns, or holds NaN or infinity.
    """
    key = _find(adata, basis)
    x = read_representation(adata, key)
    if min(components) < 0 or max(components) >= x.shape[1]:
        raise InputError(f"components={components} do not fit the {x.shape[1]} columns of {key!r}.")
    return Embedding(key, components, x[:, list(components)])


def read_velocity(adata: AnnData, embedding: Embedding, velocity_key: str | None = None) -> NDArray[np.float64]:
    """Velocity of each cell in the two columns of an embedding, shape ``(n_cells, 2)``.

    Parameters
    ----------
    adata
        Cells.
    embedding
        What `read_embedding` returned.
    velocity_key
        Key of ``obsm``; by default ``velocity_<key>`` or, as others write it, ``velocity_<key without X_>``.

    Raises
    ------
    MissingKeyError
        If there is no such key.
    InputError
        If it has too few columns, or holds NaN or infinity.
    """
    usual = [f"velocity_{embedding.key}", f"velocity_{embedding.key.removeprefix('X_')}"]
    key = next((name for name in usual if name in adata.obsm), usual[0]) if velocity_key is None else velocity_key
    if key not in adata.obsm:
        name = embedding.key.removeprefix("X_")
        basis = "" if name == "pca" else f", basis={name!r}"
        raise MissingKeyError(
            f"adata.obsm[{key!r}] does not exist; keys that exist: {_keys(adata)}. Run tw.tl.velocity(adata{basis})."
        )
    v = read_representation(adata, key)
    if max(embedding.components) >= v.shape[1]:
        raise InputError(f"components={embedding.components} do not fit the {v.shape[1]} columns of {key!r}.")
    return v[:, list(embedding.components)]


def _find(adata: AnnData, basis: str | None) -> str:
    if basis is None:
        return find_representation(adata, None)
    for key in (basis, f"X_{basis}"):
        if key in adata.obsm:
            return key
    raise MissingKeyError(f"basis={basis!r}: neither it nor 'X_{basis}' is in adata.obsm; it has {_keys(adata)}.")


def _keys(adata: AnnData) -> str:
    return ", ".join(map(repr, adata.obsm.keys())) or "none"
