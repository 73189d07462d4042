"""The one way to run a peer, one of the packages that thalweg is measured beside.

In this process: `require` it before anything long begins, and draw within `seeded`, as torchcfm reads the global
generators. In an interpreter of its own, as moscot and CellRank need it: `run` starts a module of ``benchmarks`` there,
which ends with `answer`. That module and this one import nothing of thalweg, and no more than the standard library.

A peer that is not installed is an error that says so, and how to install it. What a peer was run with is part of the
results: `record` gives its version and settings.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.common.processes import ProcessError, ask, say
from benchmarks.common.results import version

_LOOK = """
import importlib.util, json, sys
print(json.dumps({"there": importlib.util.find_spec(sys.argv[1]) is not None}))
"""


class PeerError(RuntimeError):
    """A peer that cannot be run."""


class PeerMissing(PeerError):
    """A peer that is not installed."""


@dataclass(frozen=True)
class Peer:
    """A package to be measured beside.

    Attributes
    ----------
    package
        Its name where it is installed from.
    module
        Its name in an import.
    """

    package: str
    module: str


PEERS = {
    "torchcfm": Peer("torchcfm", "torchcfm"),
    "moscot": Peer("moscot", "moscot"),
    "cellrank": Peer("cellrank", "cellrank"),
    "pot": Peer("POT", "ot"),
}


@dataclass(frozen=True)
class Answer:
    """What a peer found in an interpreter of its own.

    Attributes
    ----------
    record
        Version, Python and settings of the peer.
    found
        Its figures.
    """

    record: dict[str, Any]
    found: Any


def record(name: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a peer was run with here, for the results."""
    return {
        "version": version(PEERS[name].package),
        "python": platform.python_version(),
        "settings": dict(settings or {}),
    }


def require(*names: str) -> None:
    """Check that peers can be imported here.

    Raises
    ------
    PeerMissing
        Naming the peers that cannot, and how to install them.
    """
    absent = [name for name in names if not _installed(PEERS[name].module)]
    if absent:
        raise PeerMissing(_missing(*absent))


def _installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def _missing(*names: str, where: str = "here") -> str:
    packages = [PEERS[name].package for name in names]
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} not installed {where}; `pip install {' '.join(packages)}`"


def run(name: str, module: str, python: str = sys.executable, arguments: Sequence[object] = ()) -> Answer:
    """Run a peer's module of ``benchmarks`` by an interpreter.

    Parameters
    ----------
    name
        Of the peer.
    module
        Full name of the module, which is run as a program.
    python
        Interpreter that has the peer.
    arguments
        Of the program, such as the path of a file with its data.

    Raises
    ------
    PeerMissing
        If the peer is not installed there.
    PeerError
        If there is no such interpreter or the module fails.
    """
    try:
        if not ask([python, "-c", _LOOK, PEERS[name].module])["there"]:
            raise PeerMissing(_missing(name, where=f"for {python}"))
        said = ask([python, "-m", module, *arguments])
    except ProcessError as error:
        raise PeerError(f"{name} was not run: {str(error).splitlines()[-1][:200]}") from error
    return Answer(said["record"], said["found"])


def answer(name: str, found: Any, settings: Mapping[str, Any] | None = None) -> None:
    """Say what a peer found, to the process that runs it."""
    say({"record": record(name, settings), "found": found})


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of numpy and torch, which torchcfm draws from, and give them back as they were.

    torchcfm takes no generator: this is the only way to repeat a run of it, and the one place that touches them.
    """
    import numpy as np
    import torch

    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
