"""Expression of named genes and coordinates to draw by: the right columns, from any layout, or an error by name."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from strategies import LAYOUTS, layouts
from thalweg.data import expression
from thalweg.data.embedding import read_embedding, read_velocity
from thalweg.errors import InputError, MemoryBudgetError, MissingKeyError

X = np.arange(24.0).reshape(6, 4) * (np.arange(24).reshape(6, 4) % 3 > 0)
GENES = ["Sox2", "Gata1", "Nanog", "Klf4"]


def cells(layout: str = "c", x: np.ndarray = X) -> AnnData:
    adata = AnnData(LAYOUTS[layout](x), var=pd.DataFrame(index=GENES))
    adata.layers["twice"] = LAYOUTS[layout](2 * x)
    return adata


@given(st.data(), layouts(), st.integers(1, 7))
def test_genes_come_in_the_order_asked_for_from_any_layout(data, layout, rows):
    names = data.draw(st.permutations(GENES))[: data.draw(st.integers(1, 4))]
    wanted = X[:, [GENES.index(name) for name in names]]
    read = expression.read_expression(cells(layout), names)
    np.testing.assert_array_equal(read, wanted)
    assert read.dtype == np.float64
    np.testing.assert_array_equal(expression.read_expression(cells(layout), names, "twice"), 2 * wanted)
    np.testing.assert_array_equal(expression.read_expression(cells(layout)[::-1], names), wanted[::-1])
    columns = expression.gene_columns(cells(layout), names)
    blocks = list(expression.row_blocks(expression.expression_matrix(cells(layout)), columns, rows))
    assert [len(b) for b in blocks] == [rows] * (6 // rows) + ([6 % rows] if 6 % rows else [])
    np.testing.assert_array_equal(np.concatenate(blocks), wanted)


def test_one_gene_may_be_a_plain_string():
    np.testing.assert_array_equal(expression.read_expression(cells(), "Klf4"), X[:, 3:])
    assert expression.read_expression(cells()[:0], "Klf4").shape == (0, 1)


def test_genes_that_cannot_be_read_are_named():
    for names in ([], ["Sox2", "Sox2"]):
        with pytest.raises(InputError, match="one or more genes, each once"):
            expression.gene_columns(cells(), names)
    with pytest.raises(MissingKeyError, match=r"\['SOX2', 'T'\] are not .*\(2 in all\). Did you mean \['Sox2'\]\?"):
        expression.gene_columns(cells(), ["SOX2", "Klf4", "T"])
    with pytest.raises(MissingKeyError, match=re.escape("['T'] are not in adata.var_names (1 in all).") + "$"):
        expression.gene_columns(cells(), "T")
    twice = cells()
    twice.var_names = ["Sox2", "Sox2", "Nanog", "Klf4"]
    with pytest.raises(InputError, match="var_names_make_unique"):
        expression.gene_columns(twice, ["Sox2"])
    with pytest.raises(MissingKeyError, match=r"layer='raw' is not in adata.layers; layers that exist: 'twice'"):
        expression.read_expression(cells(), "Sox2", "raw")
    with pytest.raises(MissingKeyError, match="layers that exist: none"):
        expression.expression_matrix(AnnData(X), "raw")
    with pytest.raises(InputError, match=r"adata.X is None"):
        expression.expression_matrix(AnnData(obs=pd.DataFrame(index=list("ab"))))


def test_one_value_that_is_not_finite_names_its_gene():
    for bad in (np.nan, np.inf):
        x = X.copy()
        x[4, 2] = bad
        with pytest.raises(InputError, match=r"gene 'Nanog' holds NaN or infinite values \(1 such genes\)"):
            expression.read_expression(cells(x=x), GENES)
        assert expression.read_expression(cells(x=x), ["Sox2", "Klf4"]).shape == (6, 2)


def test_the_memory_of_expression_is_bounded_to_the_byte():
    tw.settings.max_memory = 6 * 3 * 8
    assert expression.read_expression(cells(), GENES[:3]).shape == (6, 3)
    with pytest.raises(MemoryBudgetError, match=r"6 rows x 4 columns x 8 bytes .* name fewer genes"):
        expression.read_expression(cells(), GENES)


def drawn() -> AnnData:
    adata = AnnData(obs=pd.DataFrame(index=list("abc")))
    adata.obsm["X_pca"] = np.arange(9.0).reshape(3, 3)
    adata.obsm["X_umap"] = -np.arange(6.0).reshape(3, 2)
    adata.obsm["tsne"] = np.ones((3, 2))
    return adata


def test_an_embedding_is_found_by_its_name_and_labelled():
    for basis, key, labels in (
        (None, "X_pca", ("PC 1", "PC 3")),
        ("pca", "X_pca", ("PC 1", "PC 3")),
        ("X_pca", "X_pca", ("PC 1", "PC 3")),
    ):
        e = read_embedding(drawn(), basis, (0, 2))
        assert (e.key, e.labels, e.components) == (key, labels, (0, 2))
        np.testing.assert_array_equal(e.xy, drawn().obsm[key][:, [0, 2]])
    assert read_embedding(drawn(), "umap").labels == ("UMAP 1", "UMAP 2")
    assert read_embedding(drawn(), "tsne", (1, 0)).labels == ("TSNE 2", "TSNE 1")
    scaled = drawn()
    scaled.obsm["X_standardized"] = scaled.obsm["X_pca"]
    assert read_embedding(scaled, "standardized").labels == ("standardized PC 1", "standardized PC 2")
    np.testing.assert_array_equal(read_embedding(drawn(), "umap", (1, 0)).xy, drawn().obsm["X_umap"][:, ::-1])
    with pytest.raises(MissingKeyError, match=r"neither it nor 'X_phate' is in adata.obsm; it has 'X_pca', 'X_umap'"):
        read_embedding(drawn(), "phate")
    with pytest.raises(MissingKeyError, match="it has none"):
        read_embedding(AnnData(obs=pd.DataFrame(index=["a"])), "phate")
    for components in ((0, 3), (-1, 0), (3, 0)):
        with pytest.raises(InputError, match=r"do not fit the 3 columns of 'X_pca'"):
            read_embedding(drawn(), None, components)


def test_the_velocity_of_an_embedding_by_either_name():
    adata = drawn()
    embedding = read_embedding(adata, None, (2, 0))
    with pytest.raises(MissingKeyError, match=r"obsm\['velocity_X_pca'\] does not exist; keys that exist: 'X_pca'"):
        read_velocity(adata, embedding)
    adata.obsm["velocity_pca"] = 10 + np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(read_velocity(adata, embedding), adata.obsm["velocity_pca"][:, [2, 0]])
    adata.obsm["velocity_X_pca"] = 20 + np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(read_velocity(adata, embedding), adata.obsm["velocity_X_pca"][:, [2, 0]])
    np.testing.assert_array_equal(
        read_velocity(adata, embedding, "velocity_pca"), adata.obsm["velocity_pca"][:, [2, 0]]
    )
    adata.obsm["short"] = np.ones((3, 2))
    with pytest.raises(InputError, match=r"components=\(2, 0\) do not fit the 2 columns of 'short'"):
        read_velocity(adata, embedding, "short")
    with pytest.raises(MissingKeyError, match=r"obsm\['nothing'\]"):
        read_velocity(adata, embedding, "nothing")
