"""The attacks live in benchmarks/, which is no part of the installed package and is found from the root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from anndata import AnnData

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def base() -> AnnData:
    from benchmarks.reliability import attacks

    import thalweg as tw

    tw.settings.progress = False
    return attacks.honest()


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    """The file that a payload would create."""
    from benchmarks.reliability import attacks

    path = tmp_path / "ran"
    monkeypatch.setenv(attacks.MARKER, str(path))
    return path
