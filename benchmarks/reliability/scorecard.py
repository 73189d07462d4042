"""The reliability scorecard: thirty cases, for thalweg and for the peers whose cases they are.

    python -m benchmarks.reliability.scorecard                                  # thalweg, torchcfm
    python -m benchmarks.reliability.scorecard --full                           # 50 kills, 1,000 flips
    python -m benchmarks.reliability.scorecard --moscot-python ~/moscot/bin/python

moscot and CellRank need an environment of their own (`pip install moscot cellrank`), whose interpreter is given; they
run there through their public functions, each in a process of its own. A case that is not a peer's is not counted for
it: moscot has no training to resume, torchcfm has no time column. A peer passes by the same rule: it raises, or it
gives the right result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability import (
    cases_arrays,
    cases_determinism,
    cases_faults,
    cases_numerics,
    cases_time,
    cases_trust,
)

import thalweg as tw

MODULES = (cases_time, cases_arrays, cases_numerics, cases_determinism, cases_faults, cases_trust)
RESULTS = Path(__file__).parents[1] / "results" / "scorecard.json"
HERE = Path(__file__).parent
PEERS = ("torchcfm", "moscot", "cellrank")
Row = dict[str, Any]


def ours(wanted: list[int] | None) -> dict[int, Row]:
    """Run the cases on thalweg, printing each."""
    cases = dict(sorted({number: case for module in MODULES for number, case in module.CASES.items()}.items()))
    out: dict[int, Row] = {}
    for number, (title, case) in cases.items():
        if wanted and number not in wanted:
            continue
        start = time.perf_counter()
        try:
            passed, figure = case()
        except Exception as error:  # an error of a case is a failure of it, not of the scorecard
            passed, figure = False, f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        out[number] = {"case": title, "passed": bool(passed), "figure": figure, "seconds": round(seconds, 1)}
        print(f"{number:>3}  {'pass' if passed else 'FAIL'}  {title:38}  {_line(figure)}", flush=True)
    return out


def _line(figure: str, width: int = 150) -> str:
    return figure if len(figure) <= width else figure[: width - 3] + "..."


def peer(name: str, python: str) -> dict[int, Row] | None:
    """Run a peer's cases in its own interpreter; None if it is not installed there."""
    script = HERE / f"peer_{name}.py"
    out = subprocess.run([python, str(script)], capture_output=True, text=True, check=False)
    lines = [line for line in out.stdout.splitlines() if line.startswith("{")]
    if out.returncode or not lines:
        print(f"{name}: not run ({(out.stderr.strip().splitlines() or ['no output'])[-1][:200]})")
        return None
    found = json.loads(lines[-1])
    return {int(k): row for k, row in found["cases"].items()} | {0: {"version": found["version"]}}


def show(score: dict[int, Row], peers: dict[str, dict[int, Row]]) -> None:
    """The table: a row for each case, a column for each package."""
    print("\n" + "  ".join([f"{'#':>3}", f"{'case':38}", "thalweg", *(f"{name:>9}" for name in peers)]))
    for number, row in score.items():
        cells = [f"{'pass' if row['passed'] else 'FAIL':>7}"]
        for cases in peers.values():
            cell = cases.get(number)
            cells.append(f"{'-' if cell is None else 'pass' if cell['passed'] else 'FAIL':>9}")
        print("  ".join([f"{number:>3}", f"{row['case']:38}", *cells]))
    print(f"\nthalweg {tw.__version__}: {sum(r['passed'] for r in score.values())} / {len(score)} passed")
    for name, cases in peers.items():
        rows = [r for k, r in cases.items() if k]
        passed = sum(r["passed"] for r in rows)
        print(f"{name} {cases[0]['version']}: {passed} / {len(rows)} of the cases that are its own")
        for number, row in sorted(cases.items()):
            if number:
                print(f"    {number:>3}  {'pass' if row['passed'] else 'FAIL'}  {_line(row['figure'])}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability.scorecard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help="50 kills, 20 full disks and 1,000 flips (five minutes)")
    parser.add_argument("--cases", type=int, nargs="+", help="run only these again, and keep the rest of the JSON")
    parser.add_argument("--moscot-python", help="interpreter with moscot and cellrank")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    tw.settings.progress, tw.settings.verbosity = False, "error"
    cases_faults.size.update(cases_faults.FULL if args.full else cases_faults.SMALL)
    score = ours(args.cases)
    interpreters = {} if args.no_peers else {"torchcfm": sys.executable}
    if args.moscot_python and not args.no_peers:
        interpreters |= {"moscot": args.moscot_python, "cellrank": args.moscot_python}
    found = {name: peer(name, python) for name, python in interpreters.items()}
    peers = {name: cases for name, cases in found.items() if cases is not None}
    if args.cases and args.json.exists():
        kept = json.loads(args.json.read_text())
        score = dict(sorted(({int(k): row for k, row in kept["thalweg"].items()} | score).items()))
        known = {name: {int(k): row for k, row in kept[name].items()} for name in PEERS if name in kept}
        peers = known | peers
    show(score, peers)
    trials = dict(cases_faults.size)
    result = {"thalweg": score, **peers, "passed": sum(r["passed"] for r in score.values()), "trials": trials}
    result["command"] = "python -m benchmarks.reliability.scorecard --full --moscot-python PYTHON"
    args.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {args.json}")


if __name__ == "__main__":
    main()
