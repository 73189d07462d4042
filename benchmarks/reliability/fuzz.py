"""Mutational fuzzing of the readers: no crash, no hang, no code run, whatever bytes a file has.

    python -m benchmarks.reliability.fuzz --minutes 10

Targets: `thalweg.read_h5ad` (an h5ad with a fit, followed by `tl.velocity` if it is read; its rehearsal is a forked
process, and in every fiftieth case the real one), the loader of fits (weights and fields in memory, followed by a
prediction) and the reader of checkpoints. A worker process mutates an honest file, hands it to the reader (both are in
`fuzz_targets`) and accepts a result or one of thalweg's own errors. Anything else is a finding: another exception, a
signal, more than `SECONDS` for one file, more memory than `MEMORY`, or an event of the audit hook that no reading of
data needs (compile, exec, a new process, a socket, a file opened for writing). The parent restarts workers that die.

Everything is drawn from the seed and the number of the case, so that a finding can be run again:
`python -m benchmarks.reliability.fuzz --target h5ad --seed 0 --case 1234`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import results
from benchmarks.reliability.fuzz_targets import TARGETS, WATCH, draws, make_case, prepare, warm

SHARES = {"h5ad": 0.5, "fit": 0.35, "checkpoint": 0.15}  # of the time
SECONDS = 20
MEMORY = 6 * 2**30  # bytes of address space, which torch fills with 2.5 GiB of libraries
CASES = 400  # of one worker: a fresh process now and then
RESULTS = results.path_of("fuzz")


def work(target: str, folder: Path, seed: int, first: int, seconds: float) -> None:
    """Run cases; a line of JSON for each on standard output."""
    import warnings

    import thalweg as tw

    warnings.simplefilter("ignore")
    tw.settings.progress, tw.settings.verbosity = False, "critical"
    case = make_case(target, folder)
    warm(folder)
    WATCH.start()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.addaudithook(WATCH)
    end = time.monotonic() + seconds
    for number in range(first, first + CASES):
        if time.monotonic() > end:
            break
        print(json.dumps({"start": number}), flush=True)
        WATCH.seen, start = [], time.monotonic()
        signal.alarm(SECONDS)
        try:
            case(draws(target, seed, number))
            outcome = "read"
        except tw.errors.ThalwegError as error:
            outcome = f"refused: {type(error).__name__}"
            if "the rehearsal" in str(error):
                outcome = str(error)
        except BaseException as error:
            outcome = f"FINDING: {type(error).__name__}: {str(error)[:300]}"
        signal.alarm(0)
        WATCH.on = False
        if WATCH.seen:
            outcome = f"FINDING: {WATCH.seen[:3]}"
        print(json.dumps({"case": number, "outcome": outcome, "seconds": time.monotonic() - start}), flush=True)


def one_worker(
    target: str, folder: Path, seed: int, first: int, seconds: float, outcomes: Counter[str]
) -> tuple[int, list[dict[str, Any]], float]:
    """Run a worker to its end or death; returns the next case, findings and the longest time of a case."""
    command = [sys.executable, "-m", "benchmarks.reliability.fuzz", "--worker", "--target", target, "--seed", str(seed)]
    command += ["--case", str(first), "--folder", str(folder), "--minutes", str(seconds / 60)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 10 * SECONDS + 120)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    findings, longest, last = [], 0.0, first - 1
    for line in lines:
        if "outcome" in line:
            outcomes["FINDING" if line["outcome"].startswith("FINDING") else line["outcome"]] += 1
            longest, last = max(longest, line["seconds"]), line["case"]
            if line["outcome"].startswith("FINDING"):
                findings.append({"target": target, **line})
    if process.returncode:
        started = [line["start"] for line in lines if "start" in line]
        if not started:
            raise SystemExit(process.stderr[-3000:])
        last = started[-1]
        outcomes["FINDING"] += 1
        what = "no answer in time" if process.returncode == -signal.SIGALRM else f"exit status {process.returncode}"
        findings.append({"target": target, "case": last, "outcome": what, "stderr": process.stderr[-500:]})
    return last + 1, findings, longest


def fuzz(minutes: float, targets: list[str], seed: int) -> dict[str, Any]:
    """Share the time out and collect what happened."""
    result: dict[str, Any] = {"minutes": minutes, "seed": seed, "seconds_for_a_file": SECONDS, "targets": {}}
    findings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for target in targets:
            outcomes: Counter[str] = Counter()
            share = 1.0 if len(targets) == 1 else SHARES[target]
            end, first, longest = time.monotonic() + 60 * minutes * share, 0, 0.0
            while (left := end - time.monotonic()) > 1:
                first, found, slowest = one_worker(target, folder, seed, first, left, outcomes)
                findings += found
                longest = max(longest, slowest)
                print(f"{target}: {first} files, {dict(outcomes)}", flush=True)
            result["targets"][target] = {"files": first, "outcomes": dict(outcomes), "longest_seconds": longest}
    result["files"] = sum(t["files"] for t in result["targets"].values())
    result["findings"] = findings
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=TARGETS, help="one reader only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case again, and show its error")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.worker:
        work(args.target, args.folder, args.seed, args.case, 60 * args.minutes)
        return
    if args.case is not None:
        replay(args.target, args.seed, args.case)
        return
    result = fuzz(args.minutes, [args.target] if args.target else list(TARGETS), args.seed)
    settings = {"minutes": args.minutes, "targets": list(result["targets"]), "seconds_for_a_file": SECONDS}
    results.save(args.json, results.head(settings, [args.seed], ["torch", "anndata", "h5py"]) | result)
    print(f"{result['files']} files, {len(result['findings'])} findings; written: {args.json}")
    raise SystemExit(bool(result["findings"]))


def replay(target: str, seed: int, number: int) -> None:
    """Run one case without a net."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        case = make_case(target, Path(name))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        case(draws(target, seed, number))
        print("read")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
