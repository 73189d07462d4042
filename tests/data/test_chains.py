"""Couplings as a chain: routes, masses forward as m T, back by Bayes, against dense products written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from strategies import seeds
from thalweg.data.recipe import Recipe, read_times
from thalweg.data.times import parse_times
from thalweg.data.transitions import Transitions, read_transitions
from thalweg.errors import InputError, MissingKeyError


def entry(time_key: str, labels: dict[str, float] | None = None) -> dict:
    """What a function leaves in ``uns`` of the times it read."""
    return Recipe(time_key, time_map=labels).entry()


TIMES, SIZES = (0.0, 1.0, 3.0, 7.0), (3, 4, 2, 5)


def chain(seed: int, pairs=((0.0, 1.0), (1.0, 3.0), (3.0, 7.0)), growth: bool = False):
    """A shuffled course with random blocks whose rows sum to the growth of their cell, and the blocks by pair."""
    rng = np.random.default_rng(seed)
    time = rng.permutation(np.repeat(TIMES, SIZES))
    weights = rng.uniform(0.5, 2, len(time))
    matrix, blocks = np.zeros((len(time), len(time))), {}
    for t0, t1 in pairs:
        rows, cols = np.flatnonzero(time == t0), np.flatnonzero(time == t1)
        block = rng.dirichlet(np.ones(len(cols)), len(rows)) * (rng.random((len(rows), len(cols))) < 0.7)
        block[:, 0] += 0.1
        block /= block.sum(1, keepdims=True)
        if growth:
            block *= rng.uniform(0.5, 1.5, (len(rows), 1))
            a = weights[rows] / weights[rows].sum()
            block /= (a @ block).sum()
        matrix[np.ix_(rows, cols)] = blocks[t0, t1] = block
    return Transitions(sparse.csr_matrix(matrix), time, weights, tuple(pairs)), blocks


@given(seeds(), st.booleans())
def test_masses_go_forward_as_products_and_back_by_bayes(seed, growth):
    t, blocks = chain(seed, growth=growth)
    rng = np.random.default_rng(seed)
    whole = blocks[0, 1] @ blocks[1, 3] @ blocks[3, 7]
    mass = rng.random((2, 3))
    np.testing.assert_allclose(t.push(mass, 0, 7), mass @ whole, rtol=1e-12)
    np.testing.assert_allclose(t.push(mass[0], 0, 1), mass[0] @ blocks[0, 1], rtol=1e-12)
    np.testing.assert_allclose(t.block(1, 3).toarray(), blocks[1, 3], rtol=1e-12)
    a = t.weights[t.time == 0] / t.weights[t.time == 0].sum()
    np.testing.assert_allclose(t.share(0), a, rtol=1e-12)
    # Bayes, cell by cell: of the mass on j, the share a_i T_ij / sum_i a_i T_ij came from i.
    joint = a[:, None] * whole
    later = rng.random(5)
    arriving = joint.sum(0)
    origin = np.divide(joint, arriving, out=np.zeros_like(joint), where=arriving > 0) @ later
    np.testing.assert_allclose(t.pull(later, 7, 0), origin, rtol=1e-9)
    np.testing.assert_allclose(t.pull(np.stack([later, 2 * later]), 7, 0), [origin, 2 * origin], rtol=1e-9)
    # All that arrives, taken back, is where it set out from, weighed by what each cell became.
    np.testing.assert_allclose(t.pull(t.push(a, 0, 7), 7, 0), a * whole.sum(1), rtol=1e-9)
    if not growth:
        assert t.pull(arriving, 7, 0).sum() == pytest.approx(1, rel=1e-9)


def test_mass_where_nothing_arrives_has_no_origin():
    matrix = np.zeros((3, 3))
    matrix[0, 1] = 1.0
    t = Transitions(sparse.csr_matrix(matrix), np.array([0.0, 1.0, 1.0]), np.ones(3), ((0.0, 1.0),))
    np.testing.assert_array_equal(t.pull(np.array([0.25, 0.5]), 1, 0), [0.25])


def test_routes_are_the_shortest_and_never_run_back():
    t, _ = chain(0, pairs=((0.0, 1.0), (1.0, 3.0), (0.0, 3.0), (3.0, 7.0)))
    assert t.route(0, 3) == [0, 3]
    assert t.route(0, 7) == [0, 3, 7]
    assert t.route(1, 7) == [1, 3, 7]
    np.testing.assert_array_equal(t.times, TIMES)
    for t0, t1 in ((7.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 2.0)):
        assert not t.joined(t0, t1)
        with pytest.raises(InputError, match=rf"from time {t0:g} to {t1:g}; coupled pairs: \[\(0.0, 1.0\)"):
            t.route(t0, t1)
    gap, _ = chain(0, pairs=((0.0, 1.0), (3.0, 7.0)))
    assert gap.joined(0, 1)
    assert not gap.joined(0, 7)
    # A detour beyond the end is no route.
    beyond, _ = chain(0, pairs=((0.0, 7.0), (1.0, 3.0)))
    assert not beyond.joined(0, 3)


def stored(seed=0, weight_key="w") -> tuple[AnnData, Transitions]:
    t, _ = chain(seed)
    obs = pd.DataFrame({"day": [f"day {v:g}" for v in t.time], "w": t.weights}, index=map(str, range(len(t.time))))
    adata = AnnData(obs=obs)
    adata.obsp["moves"] = t.matrix
    adata.uns["moves"] = {
        "time_key": "day",
        "weight_key": weight_key,
        "map_labels": np.array([f"day {v:g}" for v in TIMES]),
        "map_values": np.array(TIMES),
        "pairs": pd.DataFrame({"t0": [3.0, 0.0, 1.0], "t1": [7.0, 1.0, 3.0]}),
    }
    return adata, t


def test_what_was_written_is_read_with_its_labels_weights_and_order():
    adata, t = stored()
    back = read_transitions(adata, "moves")
    np.testing.assert_array_equal(back.matrix.toarray(), t.matrix.toarray())
    np.testing.assert_array_equal(back.time, t.time)
    np.testing.assert_array_equal(back.weights, t.weights)
    assert back.pairs == t.pairs
    np.testing.assert_array_equal(read_transitions(stored(weight_key="")[0], "moves").weights, 1.0)


def test_of_a_subset_the_pairs_that_remain():
    adata, t = stored()
    part = read_transitions(adata[t.time != 1.0].copy(), "moves")
    assert part.pairs == ((3.0, 7.0),)
    with pytest.raises(InputError, match=r"no two coupled times of uns\['moves'\]; its cells are of \[1.0, 7.0\]"):
        read_transitions(adata[(t.time == 1.0) | (t.time == 7.0)].copy(), "moves")
    for missing in ("obsp", "uns"):
        other, _ = stored()
        del getattr(other, missing)["moves"]
        with pytest.raises(MissingKeyError, match=r"tw\.tl\.transition first"):
            read_transitions(other, "moves")


def test_text_is_remarked_on_when_it_is_first_read(caplog):
    adata = AnnData(obs=pd.DataFrame({"stage": ["10", "2"]}, index=list("ab")))
    caplog.set_level("INFO", logger="thalweg")
    for read, said in (
        (lambda: read_times(adata, entry("stage")), []),
        (lambda: parse_times(adata, "stage"), ["2, 10"]),
    ):
        caplog.clear()
        np.testing.assert_array_equal(read(), [10.0, 2.0])
        assert [r.getMessage().rpartition(": ")[2] for r in caplog.records] == said


def test_recorded_labels_serve_labels_of_any_type():
    obs = pd.DataFrame({"stage": pd.Categorical([10, 2, 10])}, index=list("abc"))
    info = entry("stage", {"2": 0.5, "10": 4.0, "99": 9.0})
    np.testing.assert_array_equal(read_times(AnnData(obs=obs), info), [4.0, 0.5, 4.0])
    np.testing.assert_array_equal(read_times(AnnData(obs=obs), entry("stage")), [10.0, 2.0, 10.0])
    with pytest.raises(InputError, match="no entry for 10"):
        read_times(AnnData(obs=obs), entry("stage", {"2": 0.5}))
    with pytest.raises(MissingKeyError, match="'day' is not a column"):
        read_times(AnnData(obs=obs), entry("day"))
    obs["stage"] = pd.Series(["2", None, "10"], index=list("abc"), dtype=object)
    with pytest.raises(InputError, match="1 missing"):
        read_times(AnnData(obs=obs), info)
