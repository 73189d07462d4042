"""Resident memory of this process, now and at its highest; Linux alone tells it.

`resource.getrusage` is no substitute: its ``ru_maxrss`` never falls, and a child starts with that of its parent.
"""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """Largest resident size since the process began or `reset` was called, in bytes."""
    return _status("VmHWM")


def current() -> int:
    """Resident size now, in bytes."""
    return _status("VmRSS")


def _status(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def reset() -> None:
    """Let the largest resident size start again at the present one."""
    Path("/proc/self/clear_refs").write_text("5")
