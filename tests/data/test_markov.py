"""Couplings as one Markov chain: each cell steps to the next time of its condition, and only ends stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from thalweg.data.markov import read_chain
from thalweg.errors import InputError

# name: condition, time, place. Condition b has no cells at time 1; c was not followed beyond time 1; d has one time
CELLS = {
    "a0": ("a", 0, 0.0), "a0'": ("a", 0, 1.0), "a1": ("a", 1, 0.0), "a1'": ("a", 1, 1.0),
    "a2": ("a", 2, 0.0), "a2'": ("a", 2, 5.0), "a2?": ("a", 2, 4.0),
    "b0": ("b", 0, 0.0), "b2": ("b", 2, 0.0), "b2?": ("b", 2, 4.9),
    "c0": ("c", 0, 0.0), "c1": ("c", 1, 0.0), "c1?": ("c", 1, 4.9),
    "d2": ("d", 2, 4.8),
}  # fmt: skip
STEPS = {  # rows short of one and above it: growth, which a chain does not know
    ("a0", "a1"): 0.5, ("a0", "a1'"): 0.5, ("a0'", "a1'"): 2.0,
    ("a1", "a2"): 0.25, ("a1", "a2?"): 0.25, ("a1'", "a2'"): 1.5,
    ("a0", "a2"): 1.0, ("a0'", "a2"): 1.0, ("b0", "b2"): 0.2, ("b0", "b2?"): 0.6,
    ("c0", "c1"): 0.5, ("c0", "c1?"): 0.5,
}  # fmt: skip
PAIRS = [(0.0, 1.0), (0.0, 2.0), (1.0, 2.0)]
NAMES = list(CELLS)


def course(cells=CELLS, steps=STEPS, pairs=PAIRS):
    names = list(cells)
    obs = pd.DataFrame({"arm": [c for c, _, _ in cells.values()], "day": [t for _, t, _ in cells.values()]}, names)
    matrix = np.zeros((len(names), len(names)), dtype=np.float32)
    for (i, j), p in steps.items():
        if i in cells and j in cells:
            matrix[names.index(i), names.index(j)] = p
    adata = AnnData(obs=obs, obsm={"X_pca": np.array([[x, 0.0] for _, _, x in cells.values()])})
    adata.obsp["transition"] = sparse.csr_matrix(matrix)
    adata.uns["transition"] = {
        "pairs": pd.DataFrame(pairs, columns=["t0", "t1"]), "time_key": "day", "condition_key": "arm",
        "use_rep": "X_pca", "map_labels": np.array([], dtype=str), "map_values": np.array([]),
    }  # fmt: skip
    return adata


def rows_of(matrix, names=NAMES):
    return {
        name: {names[j]: round(float(p), 6) for j, p in enumerate(row) if p}
        for name, row in zip(names, matrix.toarray(), strict=True)
    }


def test_each_cell_steps_to_the_next_time_of_its_condition_and_last_cells_stay():
    """Condition a has couplings of times 0 and 2, too, which are no step of it; of b they are the only ones."""
    chain = read_chain(course(), "transition")
    found = rows_of(chain.matrix)
    assert found["a0"] == {"a1": 0.5, "a1'": 0.5}
    assert found["a0'"] == {"a1'": 1.0}
    assert found["a1"] == {"a2": 0.5, "a2?": 0.5}
    assert found["b0"] == {"b2": 0.25, "b2?": 0.75}
    assert found["c0"] == {"c1": 0.5, "c1?": 0.5}
    for name in ("a2", "a2'", "a2?", "b2", "b2?", "c1", "c1?", "d2"):
        assert found[name] == {name: 1.0}
    assert not len(chain.died)
    np.testing.assert_allclose(np.asarray(chain.matrix.sum(1)).ravel(), 1, rtol=1e-12)


def test_a_last_cell_without_a_label_steps_to_the_nearest_of_its_time_and_condition():
    """The nearest of all are of another condition: d2 at 4.8, a2' at 5."""
    chain = read_chain(course(), "transition")
    labelled = np.array([not name.endswith("?") for name in NAMES])
    found, before = rows_of(chain.leading_to(labelled, "obs['type']")), rows_of(chain.matrix)
    assert found["a2?"] == {"a2'": 1.0}
    assert found["b2?"] == {"b2": 1.0}
    assert found["c1?"] == {"c1": 1.0}
    assert {n: row for n, row in found.items() if n[-1] != "?"} == {n: r for n, r in before.items() if n[-1] != "?"}


def test_only_last_cells_need_a_label():
    chain = read_chain(course(), "transition")
    labelled = np.array([name[1] == "2" or name == "c1" for name in NAMES])
    assert rows_of(chain.leading_to(labelled, "obs['type']"))["c1?"] == {"c1": 1.0}


def test_a_condition_whose_last_cells_have_no_label_is_named():
    chain = read_chain(course(), "transition")
    labelled = np.array([name not in ("b2", "b2?") for name in NAMES])
    with pytest.raises(
        InputError, match=r"none of the 2 cells of the last time 2 of condition 'b' has a group in here"
    ):
        chain.leading_to(labelled, "here")


def test_earlier_cells_without_descendants_stay_and_are_named():
    """Nothing follows a1'; it is no last cell, and its label does not make it one."""
    chain = read_chain(course(steps={s: p for s, p in STEPS.items() if s[0] != "a1'"}), "transition")
    assert [NAMES[i] for i in chain.died] == ["a1'"]
    found = rows_of(chain.leading_to(np.array([name != "a2?" for name in NAMES]), "obs['type']"))
    assert found["a1'"] == {"a1'": 1.0}
    assert found["a2?"] == {"a2'": 1.0}


def test_a_pair_of_times_that_is_not_coupled_is_named_with_its_condition():
    adata = course(pairs=[(0.0, 1.0), (1.0, 2.0)])
    with pytest.raises(
        InputError, match=r"times 0 and 2 of condition 'b'; add them with tw\.tl\.transition\(adata, 0, 2"
    ):
        read_chain(adata, "transition")


def test_cells_that_were_left_out_take_their_share_along():
    kept = [name for name in NAMES if name != "a1'"]
    chain = read_chain(course()[kept].copy(), "transition")
    found = rows_of(chain.matrix, kept)
    assert found["a0"] == {"a1": 1.0}
    assert [kept[i] for i in chain.died] == ["a0'"]


def test_a_course_without_conditions_is_one():
    only = {name: cell for name, cell in CELLS.items() if cell[0] == "a"}
    adata = course(only)
    adata.uns["transition"]["condition_key"] = ""
    chain = read_chain(adata, "transition")
    assert {words: [list(only)[i] for i in rows] for words, rows in chain.ends.items()} == {
        "the last time 2": ["a2", "a2'", "a2?"]
    }
