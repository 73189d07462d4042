"""Threads: fits without iterative plans keep their bits, the others refuse to go on with another number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData

import thalweg as tw
from thalweg.flows import methods
from thalweg.training import loop

CONFIG = tw.tl.FitConfig(max_steps=20, validate_every=10)
ITERATIVE = {"sbcfm", "sf2m", "eam", "uotcfm", "uam"}  # whose plans are sums over a population, to a tolerance
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


def test_training_runs_on_one_thread_and_gives_the_number_back(
    course: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks this small have the same bits on several, so that the number itself is looked at."""
    step, seen = loop._step, []
    monkeypatch.setattr(loop, "_step", lambda *args: seen.append(torch.get_num_threads()) or step(*args))
    weights(course, 2, config=tw.tl.FitConfig(max_steps=3))
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 2


def test_the_iterative_plans_are_those_that_are_named() -> None:
    found = {name for name, method in methods.METHODS.items() if method.coupling in ("entropic", "unbalanced")}
    assert found == ITERATIVE


@pytest.mark.parametrize("method", ["sf2m", "uotcfm", "otcfm"])
def test_a_stopped_fit_refuses_another_number_where_plans_depend_on_it(
    course: AnnData, tmp_path: Path, method: str
) -> None:
    config = tw.tl.FitConfig(max_steps=12, batch_size=32, width=8, depth=1)
    options = {"method": method, "config": config, "checkpoint_dir": tmp_path, "checkpoint_every": 4}
    first = weights(course, 1, **options)
    if method == "otcfm":
        np.testing.assert_array_equal(weights(course, 2, resume=True, **options), first)
    else:
        with pytest.raises(tw.errors.InputError, match=r"threads of the plans .* is 1 there and 2 here"):
            weights(course, 2, resume=True, **options)
    np.testing.assert_array_equal(weights(course, 1, resume=True, **options), first)
