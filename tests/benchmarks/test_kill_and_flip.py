"""A few kills, full disks and flips of the many that the script makes."""

from __future__ import annotations

import sys

import pytest
from benchmarks.reliability import kill_and_flip


def test_flips_and_truncations_are_all_found_and_would_be_missed_by_a_reader_that_trusts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = kill_and_flip.flip_test(40, seed=1)
    assert (found["found"], found["flips"]) == (40, 40)
    assert found["truncations_found"] == found["truncations"] == 700
    assert found["missed"] == []
    assert found["torch_load_silent"] > 5
    monkeypatch.setattr("thalweg.training.checkpoint._verify", lambda path, entry: None)
    trusting = kill_and_flip.flip_test(40, seed=1)
    assert trusting["found"] < 30  # the test can fail
    assert "not noticed" in {outcome for _, _, outcome in trusting["missed"]}


@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_killed_fits_end_with_the_same_bits() -> None:
    found = kill_and_flip.kill_test(3, seed=1)
    assert found["kills"] == found["resumed"] == found["bit_equal"] == 3, found["failures"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks and limits file sizes")
def test_full_disks_cost_nothing_but_the_checkpoint() -> None:
    found = kill_and_flip.full_disk_test(2, seed=1)
    assert found["previous_loads"] == found["no_leftovers"] == found["bit_equal"] == 2, found["failures"]
