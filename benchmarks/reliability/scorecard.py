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
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import peers, results, tables
from benchmarks.reliability import (
    card,
    cases_arrays,
    cases_determinism,
    cases_faults,
    cases_numerics,
    cases_time,
    cases_trust,
)

import thalweg as tw

MODULES = (cases_time, cases_arrays, cases_numerics, cases_determinism, cases_faults, cases_trust)
RESULTS = results.path_of("scorecard")
PEERS = ("torchcfm", "moscot", "cellrank")
Cases = dict[str, results.Row]
"""What each case showed, by its number as JSON has it."""


def ours(wanted: list[int] | None) -> Cases:
    """Run the cases on thalweg, printing each."""
    cases = dict(sorted({number: case for module in MODULES for number, case in module.CASES.items()}.items()))
    out: Cases = {}
    for number, (title, case) in cases.items():
        if wanted and number not in wanted:
            continue
        start = time.perf_counter()
        try:
            passed, figure = case()
        except Exception as error:  # an error of a case is a failure of it, not of the scorecard
            passed, figure = False, f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        out[str(number)] = {"case": title, "passed": bool(passed), "figure": figure, "seconds": round(seconds, 1)}
        print(f"{number:>3}  {tables.verdict(passed)}  {title:38}  {_line(figure)}", flush=True)
    return out


def _line(figure: str, width: int = 150) -> str:
    return figure if len(figure) <= width else figure[: width - 3] + "..."


def peer(name: str, python: str) -> peers.Answer | None:
    """A peer's cases, run by its own interpreter; None, with the reason printed, if it cannot be."""
    try:
        return peers.run(name, f"benchmarks.reliability.peer_{name}", python)
    except peers.PeerError as error:
        print(error)
        return None


def collect(score: Cases, answers: dict[str, peers.Answer], earlier: dict[str, Any]) -> dict[str, Any]:
    """Cases by package, in what is stored: those of now take the place of the earlier ones, and the rest stays."""
    known = {name: dict(earlier[name]) for name in PEERS if name in earlier}
    # Files of before `peers` was stored have the version of a peer as its case 0.
    records = {name: cases.pop("0", {}) for name, cases in known.items()}
    records |= earlier.get("peers", {}) | {name: found.record for name, found in answers.items()}
    both = sorted((earlier.get("thalweg", {}) | score).items(), key=lambda item: int(item[0]))
    cases = {"thalweg": dict(both)} | known | {name: found.found for name, found in answers.items()}
    passed = sum(row["passed"] for _, row in both)
    return {**cases, "peers": records, "passed": passed, "trials": dict(cases_faults.size)}


def show(result: dict[str, Any]) -> None:
    """The table, then what each peer did in each of its cases."""
    print("\n" + tables.terminal(card.lines(result)))
    print(f"\nthalweg {tw.__version__}: {result['passed']} / {len(result['thalweg'])} passed")
    for name, cases in card.packages(result).items():
        if name == "thalweg":
            continue
        passed = sum(row["passed"] for row in cases.values())
        print(f"{name} {result['peers'][name]['version']}: {passed} / {len(cases)} of the cases that are its own")
        for number, row in cases.items():
            print(f"    {number:>3}  {tables.verdict(row['passed'])}  {_line(row['figure'])}")


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
    answers = {name: found for name, python in interpreters.items() if (found := peer(name, python)) is not None}
    earlier = results.load(args.json) if args.cases and args.json.exists() else {}
    found = collect(score, answers, earlier)
    show(found)
    command = "python -m benchmarks.reliability.scorecard --full --moscot-python PYTHON"
    head = results.head({"full": args.full, "cases": args.cases}, (), ["torch", "anndata", "numpy", "pandas"], command)
    print(f"written: {results.save(args.json, found | head)}")


if __name__ == "__main__":
    main()
