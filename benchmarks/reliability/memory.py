"""Resident memory of this process at its highest; Linux alone tells it.

`resource.getrusage` is no substitute: its ``ru_maxrss`` never falls, and a child starts with that of its parent.
"""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """Largest resident size since the process began or `reset` was called, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def reset() -> None:
    """Let the largest resident size start again at the present one."""
    Path("/proc/self/clear_refs").write_text("5")
