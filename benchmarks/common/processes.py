"""Something measured in a process of its own, which says what it found in the last line of its output, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.results import ROOT, plain


class ProcessError(RuntimeError):
    """A process that failed, or said nothing; the message has its last words."""


def say(found: Any) -> None:
    """Say what was found, on a line of its own, whatever was printed before."""
    print("\n" + json.dumps(plain(found)), flush=True)


def ask(command: Sequence[object], env: Mapping[str, str] | None = None) -> Any:
    """Run a command from the root of the repository; what it says with `say`.

    Raises
    ------
    ProcessError
        If it cannot be started, ends with an error, or says nothing.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ProcessError(f"{words[0]} cannot be started: {error.strerror}") from error
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not said:
        last = done.stderr.strip()[-2000:] or "no output"
        raise ProcessError(f"{' '.join(words)} ended with {done.returncode}:\n{last}")
    return json.loads(said[-1])
