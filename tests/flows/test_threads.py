"""Threads: training runs on one, and fits without iterative plans have the same bits on any number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from anndata import AnnData

import thalweg as tw
from thalweg.flows import methods
from thalweg.training import loop

CONFIG = tw.tl.FitConfig(max_steps=20, validate_every=10)
ITERATIVE = {"sbcfm", "sf2m", "eam", "uotcfm", "uam", "usb"}  # whose plans are sums over a population, to a tolerance
SAME = sorted(methods.METHODS.keys() - ITERATIVE)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return tw.datasets.simulated(1500, n_genes=60, n_futures=1, rng=0)


def weights(adata: AnnData, threads: int, **options: object) -> np.ndarray:
    torch.set_num_threads(threads)
    return tw.tl.fit(adata, "time", rng=0, copy=True, device="cpu", **options).uns["thalweg"]["weights"]["0"]


@pytest.mark.parametrize("method", SAME)
def test_fits_without_iterative_plans_have_the_same_bits(cells: AnnData, method: str) -> None:
    one = weights(cells, 1, method=method, config=CONFIG)
    for threads in (2, 4):
        np.testing.assert_array_equal(weights(cells, threads, method=method, config=CONFIG), one)


@pytest.mark.parametrize(("method", "networks"), [("otcfm", 1), ("usb", 2)])
def test_training_runs_on_one_thread_and_gives_the_number_back(
    course: AnnData, monkeypatch: pytest.MonkeyPatch, method: str, networks: int
) -> None:
    """Networks this small have the same bits on several, so that the number itself is looked at."""
    step, seen = loop._step, []
    monkeypatch.setattr(loop, "_step", lambda *args: seen.append(torch.get_num_threads()) or step(*args))
    weights(course, 2, method=method, config=tw.tl.FitConfig(max_steps=3), check=False)
    assert seen == [1, 1, 1] * networks
    assert torch.get_num_threads() == 2


def test_the_iterative_plans_are_those_that_are_named() -> None:
    found = {name for name, method in methods.METHODS.items() if method.coupling in ("entropic", "unbalanced")}
    assert found == ITERATIVE
