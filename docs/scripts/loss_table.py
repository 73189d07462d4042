"""Write docs/losses.md and benchmarks/results/losses.json: ``python docs/scripts/loss_table.py``.

Runs every test that records a proof (marker ``proof``), reads the records from its junit XML and joins them with the
rows of loss_rows.toml. Nothing is written unless all of them pass and each row has a proof.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results

ROOT = results.ROOT
PAGE = ROOT / "docs" / "losses.md"
RESULTS = results.path_of("losses")

Row = dict[str, str]
Proof = dict[str, str | float]

INTRODUCTION = """\
# Objectives, and what proves them

Each entry is an objective of the package: what it is, how it is reached (names without a prefix are in `thalweg.core`,
`tl` is `thalweg.tl`), where the formula comes from ("derived" where it is not in a paper), and the formula that the
code computes, t = 0 being the source and t = 1 the target. Below it are the tests that fail if the code is wrong: each
compares with a closed form, with an exact enumeration, or with an independent implementation in double precision.
*Measured error* is the largest that the test found over all its cases, *tolerance* the error above which it fails.
Errors are absolute and in double precision unless the test's own description states another unit, such as a number of
standard errors.

This page is written by `python docs/scripts/loss_table.py`; the figures are in `benchmarks/results/losses.json`.
"""


def read_rows() -> list[Row]:
    """Rows of the table, in order."""
    rows: list[Row] = tomllib.loads((ROOT / "docs" / "scripts" / "loss_rows.toml").read_text(encoding="utf-8"))["row"]
    return rows


def measure() -> list[Proof]:
    """Run the proofs and return their records; exits if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "proofs.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "proof", f"--junitxml={report}"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise SystemExit("a proof failed, see above; nothing was written")
        found = ElementTree.parse(report).iterfind(".//property[@name='proof']")
        return [json.loads(p.attrib["value"]) for p in found]


def join(rows: list[Row], records: list[Proof]) -> dict[str, list[Proof]]:
    """Proofs of each row: for each test and tolerance the largest error over its cases.

    Exits, naming the rows, if one has no proof or a proof names none.
    """
    largest: dict[tuple[str, str, float], float] = {}
    for r in records:
        key = str(r["row"]), str(r["test"]).partition("[")[0], float(r["tolerance"])
        largest[key] = max(float(r["error"]), largest.get(key, 0.0))
    ids = [row["id"] for row in rows]
    missing, unknown = sorted(set(ids) - {k[0] for k in largest}), sorted({k[0] for k in largest} - set(ids))
    if missing or unknown:
        raise SystemExit(
            f"rows without a proof: {', '.join(missing) or 'none'}; proofs of rows that are not in loss_rows.toml: "
            f"{', '.join(unknown) or 'none'}; nothing was written. A test proves a row with the fixture "
            "proof(row, error, tolerance)."
        )
    return {
        i: [{"test": t, "error": e, "tolerance": tol} for (row, t, tol), e in sorted(largest.items()) if row == i]
        for i in ids
    }


def render(rows: list[Row], proofs: dict[str, list[Proof]]) -> str:
    """Text of the page: an entry for each row, with a table of its proofs."""
    lines = [INTRODUCTION]
    for group, members in groupby(rows, key=lambda row: row["group"]):
        lines.append(f"## {group}\n")
        for row in members:
            lines += [f"### {row['objective']}\n", f"{row['reachable']}. Source: {row['source']}.\n"]
            lines += [f"$$\n{row['formula']}\n$$\n", "| test | measured error | tolerance |", "|---|---|---|"]
            for proof in proofs[row["id"]]:
                file, _, test = str(proof["test"]).removeprefix("tests/").partition("::")
                lines.append(f"| `{test}` in `{file}` | {proof['error']:.1e} | {proof['tolerance']:.1e} |")
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, join, write."""
    rows = read_rows()
    proofs = join(rows, measure())
    results.save(RESULTS, results.head(packages=["torch"]) | {"proofs": proofs})
    PAGE.write_text(render(rows, proofs), encoding="utf-8")


if __name__ == "__main__":
    main()
