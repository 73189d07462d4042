"""Which plans are certified, and from how many cells on they are made in minibatches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from anndata import AnnData

import thalweg as tw
from thalweg.core.ot.exact import pairing
from thalweg.flows.coupling import _Ends, _Pairing
from thalweg.flows.methods import METHODS


class CalledError(Exception):
    """The function that was set aside was called."""


def _fail(*_: object, **__: object) -> None:
    raise CalledError


@pytest.mark.parametrize("method", ["otcfm", "am"])
def test_exact_plans_of_a_fit_are_solved_with_a_proof_and_minibatches_are_not(
    course: AnnData, quick: tw.tl.FitConfig, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Also below 512 cells, where `couplings.exact` without weights would take an assignment."""
    monkeypatch.setattr(pairing, "_assignment", _fail)
    tw.tl.fit(course, "time", method=method, rng=0, config=replace(quick, max_steps=2))
    with pytest.raises(CalledError):
        tw.tl.fit(course, "time", method=method, rng=0, config=replace(quick, max_steps=2, coupling="minibatch"))
    monkeypatch.undo()
    monkeypatch.setattr(pairing, "solve_exact", _fail)
    with pytest.raises(CalledError):
        tw.tl.fit(course, "time", method=method, rng=0, config=replace(quick, max_steps=2))


def test_plans_of_bridges_are_not_certified(
    course: AnnData, quick: tw.tl.FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "solve_exact", _fail)
    monkeypatch.setattr(pairing, "_assignment", _fail)
    tw.tl.fit(course, "time", method="sf2m", rng=0, config=replace(quick, max_steps=2))


def test_balanced_plans_are_whole_up_to_16384_cells_against_as_many() -> None:
    assert tw.settings.max_memory == 2 * 2**30

    def too_large(method: str, n: int) -> bool:
        x, w = torch.empty(1, 5).expand(n, 5), torch.empty(1).expand(n)
        return _Pairing(METHODS[method], tw.tl.FitConfig(), 1.0, 1.0)._too_large(_Ends(x, x, w, w))

    for method in ("otcfm", "am", "sf2m", "sbcfm", "eam"):
        assert not too_large(method, 16_384)
        assert too_large(method, 16_385)
    assert not too_large("uotcfm", 100_000)
    assert tw.tl.FitConfig().block == 256
