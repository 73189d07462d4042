"""The memory setting bounds plans, scores and inference, and the message says rows x columns x bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg._memory import check_memory
from thalweg.core import couplings, distances
from thalweg.core.ot.exact import solve_exact
from thalweg.errors import MemoryBudgetError
from thalweg.flows import flow as _flow

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((700, 4)), RNG.standard_normal((600, 4)) + 1


def test_the_message_multiplies():
    check_memory("it", 10, 10, 8, 800, "do less")
    with pytest.raises(MemoryBudgetError, match=r"it: 10 rows x 10 columns x 8 bytes = 0\.00 MiB.*do less, or raise"):
        check_memory("it", 10, 10, 8, 799, "do less")
    check_memory("it", 2**32, 1, 1, None, "do less")
    with pytest.raises(MemoryBudgetError, match=r"4\.00 GiB, over max_memory = 4\.00 GiB"):
        check_memory("it", 2**32 + 1, 1, 1, None, "do less")


@pytest.mark.parametrize("score", ["energy_distance", "mmd"])
def test_scores_are_the_same_in_blocks_and_refused_when_not_even_a_row_fits(score, monkeypatch):
    function = getattr(tw.metrics, score)
    whole = function(X, Y)
    sizes = []
    distance = distances._distance
    monkeypatch.setattr(distances, "_distance", lambda s, t: sizes.append(len(s) * len(t)) or distance(s, t))
    tw.settings.max_memory = 200_000
    assert function(X, Y) == pytest.approx(whole, rel=1e-12)
    assert max(sizes) * 32 <= 200_000
    assert len(sizes) > 100
    tw.settings.max_memory = 50_000
    with pytest.raises(MemoryBudgetError, match=r"1300 rows x 4 columns x 16 bytes"):
        function(X, Y)


def test_exact_transport_is_refused_over_the_budget():
    tw.settings.max_memory = 20 * 2**20
    with pytest.raises(MemoryBudgetError, match=r"of 700 x 600 points: 700 rows x 600 columns x 64 bytes"):
        tw.metrics.wasserstein(X, Y)
    tw.settings.max_memory = 30 * 2**20
    assert tw.metrics.wasserstein(X, Y) > 0.5
    with pytest.raises(MemoryBudgetError, match=r"their arcs: 1300 rows"):
        solve_exact(X, Y, small=1000, max_memory=5 * 2**20)
    with pytest.raises(MemoryBudgetError, match="exact transport"):
        couplings.exact(torch.from_numpy(X), torch.from_numpy(Y), max_memory=10**6)


def test_a_fit_with_whole_plans_is_refused_and_auto_takes_minibatches(course, quick, caplog):
    from dataclasses import replace

    tw.settings.max_memory = 500_000
    with pytest.raises(MemoryBudgetError, match=r"120 x 120 points.*minibatch"):
        tw.tl.fit(course, "time", method="otcfm", rng=0, config=replace(quick, coupling="whole", block=300))
    assert "thalweg" not in course.uns
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=quick)
    assert "minibatch exact" in caplog.text


def test_cells_are_carried_in_blocks_within_the_budget(fitted, monkeypatch):
    adata = fitted.copy()
    reference = tw.tl.interpolate(adata, 2.0, solver="rk4", n_steps=20).obsm["X_pca"]
    rows = []
    carry = _flow.Flow._carry
    monkeypatch.setattr(_flow.Flow, "_carry", lambda self, z, *rest: rows.append(len(z)) or carry(self, z, *rest))
    tw.settings.max_memory = 20_000
    out = tw.tl.interpolate(adata, 2.0, solver="rk4", n_steps=20).obsm["X_pca"]
    np.testing.assert_allclose(out, reference, atol=1e-6)
    assert sum(rows) == 240  # from both ends
    assert max(rows) < 20
    tw.settings.max_memory = 5000
    with pytest.raises(MemoryBudgetError):
        tw.tl.interpolate(adata, 2.0)
