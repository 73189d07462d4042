"""Peers: one that is missing is named, one that fails says why, and what it was run with is kept."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.common import peers
from benchmarks.common.processes import ProcessError, ask
from benchmarks.images import steptime

THERE = peers.Peer("tiny-peer", "tiny_peer")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A peer that another process can import, and a place for the module that runs it."""
    (tmp_path / "tiny_peer.py").write_text("__version__ = '1.2'\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(peers.PEERS, "tiny", THERE)
    return tmp_path


def test_a_peer_that_is_missing_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcfm", None)  # as if it were not installed
    message = r"^torchcfm is not installed here; `pip install torchcfm`$"
    with pytest.raises(peers.PeerMissing, match=message):
        peers.require("torchcfm", "pot")
    with pytest.raises(peers.PeerMissing, match=message):
        steptime.measure(steps=1)


def test_a_peer_that_is_missing_elsewhere_is_named_with_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "absent", peers.Peer("absent-peer", "absent_peer"))
    with pytest.raises(peers.PeerMissing, match=f"absent is not installed for {sys.executable}; `pip install absent-p"):
        peers.run("absent", "benchmarks.reliability.peer_moscot")
    with pytest.raises(peers.PeerError, match="absent was not run: /no/python cannot be started"):
        peers.run("absent", "benchmarks.reliability.peer_moscot", "/no/python")


def test_a_peer_answers_with_its_figures_version_and_settings(tiny: Path) -> None:
    (tiny / "answers.py").write_text(
        "import tiny_peer\n"
        "from benchmarks.common import peers\n"
        "peers.PEERS['tiny'] = peers.Peer('tiny_peer', 'tiny_peer')\n"
        "print('{ not the answer')\n"
        "peers.answer('tiny', {3: {'passed': True}}, {'epsilon': 0.01})\n"
    )
    answer = peers.run("tiny", "answers")
    assert answer.found == {"3": {"passed": True}}
    assert answer.record == {"version": "1.2", "python": platform.python_version(), "settings": {"epsilon": 0.01}}


def test_a_peer_that_fails_says_why(tiny: Path) -> None:
    (tiny / "fails.py").write_text("raise ValueError('no plan')\n")
    with pytest.raises(peers.PeerError, match=r"tiny was not run: ValueError: no plan"):
        peers.run("tiny", "fails")
    with pytest.raises(ProcessError, match="no output"):
        ask([sys.executable, "-c", "pass"])
    with pytest.raises(ProcessError, match="ended with 3"):
        ask([sys.executable, "-c", "print('{}'); raise SystemExit(3)"])  # what it said before it failed does not count


def test_global_generators_are_seeded_and_given_back() -> None:
    def draws() -> tuple[float, float]:
        return float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with peers.seeded(3):
        first = draws()
    with pytest.raises(ZeroDivisionError), peers.seeded(3):
        assert draws() != first or 1 / 0
    with peers.seeded(4):
        assert draws() != first
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
