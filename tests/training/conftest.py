"""The small run, whole and killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for small_run

from small_run import Killed, run

from thalweg.training.checkpoint import folders


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 5 and 10, of a run killed at step 13."""
    with pytest.raises(Killed):
        run(tmp_path / "c", at=13)
    assert [p.name for p in folders(tmp_path / "c")] == ["step-00000005", "step-00000010"]
    return tmp_path / "c"
