"""Shared data for the tests, and the record of what proves each objective."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import pytest
import torch
from anndata import AnnData

import thalweg as tw

pytest.register_assert_rewrite("strategies")
import last_bits  # noqa: E402
import strategies  # noqa: E402
from courses import make_course  # noqa: E402

mpl.use("Agg")
strategies.load_profile()
torch.set_num_threads(1)  # networks here are tiny: a second thread costs more than it brings


@pytest.fixture(autouse=True)
def _quiet():
    tw.settings.progress = False
    tw.settings.verbosity = "info"
    yield
    tw.settings.max_memory = 2 * 2**30


@pytest.fixture(autouse=True)
def _last_bits(monkeypatch: pytest.MonkeyPatch):
    """``THALWEG_LAST_BITS=1 pytest`` runs every test as on another machine, see `last_bits`."""
    if seed := os.environ.get("THALWEG_LAST_BITS"):
        last_bits.move(monkeypatch, int(seed))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "proof" in getattr(item, "fixturenames", ()):
            item.add_marker("proof")


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Callable[[str, Any, float], None]:
    """``proof(row, error, tolerance)``: assert ``error <= tolerance`` and record it for the table of docs/losses.md.

    ``row`` is an id of docs/scripts/loss_rows.toml. The record is a property of the test, as `record_property` writes
    it to junit XML; that fixture itself warns unless the XML is of the older of two kinds.
    """

    def check(row: str, error: Any, tolerance: float) -> None:
        measured = torch.as_tensor(error, dtype=torch.float64).detach().item()
        record = {"row": row, "test": request.node.nodeid, "error": measured, "tolerance": float(tolerance)}
        request.node.user_properties.append(("proof", json.dumps(record)))
        assert measured <= tolerance, f"{row}: error {measured:.3g} exceeds the tolerance {tolerance:.3g}"

    return check


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def course() -> AnnData:
    return make_course()


@pytest.fixture
def quick() -> tw.tl.FitConfig:
    return tw.tl.FitConfig(max_steps=60, batch_size=64, width=16, depth=2, validate_every=20)


@pytest.fixture(scope="session")
def fitted() -> AnnData:
    """A course with an OT-CFM fit; tests that write must copy it."""
    tw.settings.progress = False
    adata = make_course()
    tw.tl.fit(adata, "time", method="otcfm", rng=0, config=tw.tl.FitConfig(max_steps=500, batch_size=256, width=32))
    return adata
