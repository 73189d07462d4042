"""The scorecard as a table: a row for each case of thalweg, a column for each package."""

from __future__ import annotations

from typing import Any

from benchmarks.common.tables import Lines, verdict


def packages(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The cases of each package, by number as text, in what `scorecard` stores."""
    return {name: cases for name, cases in data.items() if _numbered(cases)}


def _numbered(cases: object) -> bool:
    return isinstance(cases, dict) and bool(cases) and all(map(str.isdigit, cases))


def lines(data: dict[str, Any]) -> Lines:
    """The table; a case that is not a package's own is left blank."""
    found = packages(data)
    out = [["#", "case", *found]]
    for number, row in data["thalweg"].items():
        rows = [cases.get(number) for cases in found.values()]
        out.append([number, row["case"], *(verdict(None if r is None else r["passed"]) for r in rows)])
    return out
