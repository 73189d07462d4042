"""The one way to store what a benchmark measured: a JSON file in ``benchmarks/results``.

Every file begins with the same entries, whatever the script:

- ``command``: what makes the file again;
- ``settings``: the options that the figures depend on;
- ``seeds``: those of the rows;
- ``versions``: of thalweg, Python and the packages used;
- ``machine``: processor, cores, threads, load.

Then comes what was measured, usually ``rows``, one for each method, held-out time and seed, and a ``summary`` of them.
A file is moved into place whole, so that a run that is killed leaves the earlier one as it was. Numbers that are not
finite are stored as null, which JSON has a word for.

Read by the pages of the documentation as well: nothing but the standard library is imported here.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results"
Row = dict[str, Any]


class ResultError(ValueError):
    """A file of results that cannot be read, or rows that do not go together."""


def path_of(name: str) -> Path:
    """The file of results with this name."""
    return FOLDER / f"{name}.json"


def load(path: Path) -> Any:
    """What a file of results holds.

    Raises
    ------
    ResultError
        If it is absent or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path} does not exist") from None
    except ValueError as error:
        raise ResultError(f"{path} is not readable as JSON ({error})") from error


def save(path: Path, content: Any) -> Path:
    """Write a file of results, whole or not at all; its folder is made."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def plain(value: Any) -> Any:
    """The same in what JSON holds: arrays and tuples as lists, numpy's numbers as Python's, not finite ones as null."""
    if hasattr(value, "tolist"):  # an array or a number of numpy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key.item() if hasattr(key, "item") else key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path | date):
        return str(value)
    return value


def head(
    settings: Mapping[str, Any] | None = None,
    seeds: Iterable[int] = (),
    packages: Iterable[str] = ("torch", "numpy"),
    command: str = "",
) -> dict[str, Any]:
    """The entries that every file begins with.

    Parameters
    ----------
    settings
        Options by name. Paths are left out: where a file lies changes no figure, and is the affair of one machine.
    seeds
        Of the rows.
    packages
        Whose versions matter, besides thalweg and Python.
    command
        What makes the file again; by default what started this process.
    """
    kept = {name: value for name, value in (settings or {}).items() if not isinstance(value, Path)}
    return {
        "command": command or command_line(),
        "settings": kept,
        "seeds": list(seeds),
        "versions": versions("thalweg", *packages),
        "machine": machine(),
    }


def command_line() -> str:
    """What started this process, such as ``python benchmarks/single_cell/cite.py --dims 5``.

    Of an absolute path the name alone is kept: where it lies is the affair of one machine.
    """
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        start = f"python -m {main.__spec__.name.removesuffix('.__main__')}"
    else:
        script = Path(getattr(main, "__file__", None) or "").resolve()
        start = f"python {script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name}"
    return " ".join([start, *(Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:])])


def versions(*packages: str) -> dict[str, str | None]:
    """Versions of Python and of packages; None of one that is not installed."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def version(package: str) -> str | None:
    """Version of a package as it was installed, of thalweg itself that of the source; None if it was not."""
    module = sys.modules.get(package)
    own = getattr(module, "__version__", None) if package == "thalweg" else None
    try:
        return str(own or metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What the figures are measured on, without a name: processor, cores, threads of torch, load."""
    torch = sys.modules.get("torch")  # a script that times torch has it loaded
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": None if torch is None else torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def kept_rows(path: Path, keep: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    """Rows of an earlier run that are to stay; none if there is no file yet."""
    return [row for row in load(path)["rows"] if keep(row)] if path.exists() else []


def keys_of(rows: Iterable[Row], *names: str) -> set[tuple[Hashable, ...]]:
    """What is done: the values of these columns in each row, with 2.0 equal to 2."""
    return {tuple(row[name] for name in names) for row in rows}


def merged(kept: Iterable[Row], new: Iterable[Row], *names: str) -> list[Row]:
    """Earlier rows and new ones; a new row takes the place of the one with the same values of these columns.

    Raises
    ------
    ResultError
        If a row lacks one of the columns, so that it cannot be told from others.
    """
    out: dict[tuple[Hashable, ...], Row] = {}
    for row in (*kept, *new):
        absent = [name for name in names if name not in row]
        if absent:
            raise ResultError(f"a row has no {', '.join(absent)}: {row}")
        out[tuple(row[name] for name in names)] = row
    return list(out.values())
