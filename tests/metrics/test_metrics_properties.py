"""Properties of the public scores: the distances of the core behind doors that take anything array-like."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from strategies import clouds, matrices, seeds, weights
from thalweg.core import distances
from thalweg.errors import InputError

SCORES = {
    "w1": (tw.metrics.wasserstein, distances.wasserstein, {}),
    "w2": (tw.metrics.wasserstein, distances.wasserstein, {"p": 2}),
    "energy": (tw.metrics.energy_distance, distances.energy, {}),
    "mmd": (tw.metrics.mmd, distances.mmd, {}),
    "narrow mmd": (tw.metrics.mmd, distances.mmd, {"bandwidth": 0.3}),
    "variance": (tw.metrics.variance_ratio, distances.variance_ratio, {}),
}
KINDS = {"list": lambda z: z.tolist(), "frame": pd.DataFrame, "float32": np.float32, "fortran": np.asfortranarray}


@given(st.data(), clouds(), st.sampled_from(sorted(KINDS)))
def test_each_score_is_that_of_the_core_with_its_weights_on_the_right_side(data, pair, kind):
    x, y = pair
    a, b = data.draw(weights(len(x))), data.draw(weights(len(y)))
    convert = KINDS[kind]
    for name, (public, core, options) in SCORES.items():
        if name == "variance" and not np.ptp(y, axis=0).any():
            continue
        both = public(convert(x), convert(y), weights_x=a.tolist(), weights_y=pd.Series(b), **options)
        assert both == core(x, y, a=a, b=b, **options), name
        assert public(convert(x), convert(y), weights_x=a, **options) == core(x, y, a=a, **options)
        assert public(convert(x), convert(y), weights_y=b, **options) == core(x, y, b=b, **options)
        assert isinstance(both, float)


@given(matrices())
def test_whole_numbers_neither_wrap_nor_overflow(x):
    """A shift by the largest value that the type holds would wrap; scores are computed in float64."""
    x = x[:, :1]
    low, high = x.astype(np.float64).min(), x.astype(np.float64).max()
    ends = np.array([[low], [high]])
    got = tw.metrics.wasserstein(x, x[::-1])
    assert got <= 1e-6 * (1 + high - low)
    assert tw.metrics.wasserstein(ends.astype(x.dtype)[:1], ends.astype(x.dtype)[1:]) == pytest.approx(
        high - low, rel=1e-9
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_second_weights_are_those_of_y(name):
    public, _, options = SCORES[name]
    x, y = np.ones((3, 2)), np.arange(8.0).reshape(4, 2)
    with pytest.raises(InputError, match="weights of x must be 3"):
        public(x, y, weights_x=[1, 1, 1, 1], **options)
    with pytest.raises(InputError, match="weights of y must be 4"):
        public(x, y, weights_y=[1, 1, 1], **options)


@given(seeds())
def test_the_energy_distance_and_mmd_of_a_cloud_to_itself_are_not_negative(seed):
    """Three sums that cancel leave -4e-16 and the like."""
    x = np.random.default_rng(seed).normal(size=(37, 5))
    for scale in (1e-3, 1.0, 1e3):
        for score in (tw.metrics.energy_distance, tw.metrics.mmd):
            assert 0 <= score(scale * x, scale * x[::-1]) < 1e-9 * max(scale, 1)
