"""The public scores take what users hold: lists, float32, data frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thalweg as tw


@pytest.mark.parametrize("kind", [list, np.float32, pd.DataFrame])
def test_array_likes(kind):
    x, y = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [1.0, 2.0]])
    convert = (lambda z: z.tolist()) if kind is list else (lambda z: z.astype(kind)) if kind is np.float32 else kind
    assert tw.metrics.wasserstein(convert(x), convert(y)) == pytest.approx(2, rel=1e-9)
    assert tw.metrics.wasserstein(convert(x), convert(y), p=2) == pytest.approx(2, rel=1e-9)
    # E|X-Y| is the mean of 2 and sqrt 5, E|X-X'| is a half
    assert tw.metrics.energy_distance(convert(x), convert(y)) == pytest.approx(2 + np.sqrt(5) - 1, rel=1e-6)
    assert tw.metrics.variance_ratio(convert(2 * x), convert(y)) == pytest.approx(4, rel=1e-9)


def test_weights_are_normalised():
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0]])
    assert tw.metrics.wasserstein(x, y, weights_x=[30, 10]) == pytest.approx(0.25, rel=1e-12)
    assert tw.metrics.mmd(x, y, weights_x=[1, 0]) == pytest.approx(0, abs=1e-12)
