"""Mutation run over `core`, `data`, `flows` and `tl`: does the suite notice a change of the code.

    python benchmarks/reliability/mutation.py --mutants 200 --seed 1 --minutes 10     # again, until it says done

On a copy of the tree the tests of `TESTS` run once under coverage, which tells the tests that reach each line. Then
mutants (`mutants.py` has the rules) are drawn, a file by its number of lines, a mutant of the file uniformly. Each runs
in a process forked from one that has the libraries loaded; only the tests that reach its line run, the fastest first,
up to the first failure. Killed is a mutant for which a test fails, the interpreter dies or time runs out; tests beyond
`BUDGET` seconds are not run, so that a few survivors may be survivors of the budget only.

A log in JSON lines beside the copy keeps what is done: the command goes on where it stopped. At the end the share of
killed mutants, its 95 % interval (Wilson) and every survivor go to benchmarks/results/mutation.json.

Written for this purpose because mutmut and cosmic-ray draw no random sample and cannot keep torch, whose import takes
longer than most tests, loaded between mutants.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results
from benchmarks.reliability.mutants import Mutant, find

ROOT = results.ROOT
RESULTS = results.path_of("mutation")
FOLDERS = ("core", "data", "flows", "tl")
TESTS = ("core", "data", "flows", "tl", "security")
PYTEST = ["-q", "-p", "no:cacheprovider", "-n0"]
BUDGET = 30.0  # seconds of tests for a mutant, measured without it
GRACE = 60.0  # seconds beyond three times that, after which a mutant hangs
MEMORY = 12 * 2**30  # address space of a mutant


@dataclass(frozen=True)
class Map:
    """Which tests reach which line, and how long they take.

    Attributes
    ----------
    seconds
        Of each test, by its id.
    lines
        Ids of the tests that reach a line, by file and line.
    failing
        Tests that fail without any mutant, and cannot judge one.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]
    failing: list[str]

    def tests(self, path: str, mutant: Mutant) -> list[str]:
        """The tests to run, the fastest first, within the budget.

        For a line that runs at import: those that reach the file, and those that reach no line and look at modules.
        """
        first, last = mutant.statement
        reached = self.lines.get(path, {})
        span = range(first, last + 1) if mutant.in_function else reached
        chosen = {test for line in span for test in reached.get(line, ())}
        if not mutant.in_function:
            chosen |= self.seconds.keys() - {t for file in self.lines.values() for ids in file.values() for t in ids}
        found = sorted(chosen, key=lambda t: self.seconds[t])
        total = np.cumsum([self.seconds[test] for test in found])
        return found[: int((total <= BUDGET).sum())]


def copy_tree(work: Path) -> Path:
    """Copy what git knows or would add."""
    tree = work / "tree"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def environment(tree: Path) -> dict[str, str]:
    """Variables under which the copy is imported and properties are not shrunk to small examples."""
    return {"PYTHONPATH": str(tree / "src"), "THALWEG_HYPOTHESIS": "mutation"}


def measure(tree: Path, work: Path) -> Map:
    """Run the tests once, with the source as it is."""
    from coverage import CoverageData

    database = work / "coverage"
    command = [sys.executable, "-m", "pytest", *(f"tests/{name}" for name in TESTS), "-vv", *PYTEST[1:]]
    command += ["--durations=0", "--cov=thalweg", "--cov-context=test", "--cov-report="]
    env = os.environ | environment(tree) | {"COVERAGE_FILE": str(database)}
    run = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    (work / "tests.log").write_text(run.stdout)
    if run.returncode not in (0, 1):
        raise SystemExit(f"the tests cannot be run:\n{run.stdout[-3000:]}")
    failing = re.findall(r"^FAILED (\S+)", run.stdout, re.MULTILINE)
    seconds: dict[str, float] = {}
    for value, test in re.findall(r"^([\d.]+)s (?:call|setup) +(\S.*)$", run.stdout, re.MULTILINE):
        if test.strip() not in failing:
            seconds[test.strip()] = seconds.get(test.strip(), 0.0) + float(value)
    data = CoverageData(str(database))
    data.read()
    lines: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        if Path(file).relative_to(tree / "src" / "thalweg").parts[0] not in FOLDERS:  # settings, which all tests touch
            continue
        contexts = data.contexts_by_lineno(file)
        reached = {n: sorted({c.split("|")[0] for c in names if c}) for n, names in contexts.items()}
        lines[str(Path(file).relative_to(tree))] = {
            n: [t for t in tests if t in seconds] for n, tests in reached.items()
        }
    return Map(seconds, lines, failing)


def sample(tree: Path, count: int, seed: int) -> list[tuple[str, Mutant]]:
    """Draw mutants without repetition: a file by its lines, then one of its mutants."""
    rng = np.random.default_rng(seed)
    files = sorted(path for name in FOLDERS for path in (tree / "src" / "thalweg" / name).rglob("*.py"))
    sources = [path.read_text() for path in files]
    left = [list(rng.permutation(np.array(find(source), dtype=object))) for source in sources]
    size = np.array([source.count("\n") for source in sources], dtype=float)
    out: list[tuple[str, Mutant]] = []
    while len(out) < count and any(left):
        share = size * [bool(mutants) for mutants in left]
        k = int(rng.choice(len(files), p=share / share.sum()))
        out.append((str(files[k].relative_to(tree)), left[k].pop()))
    return out


def run_forked(tree: Path, tests: list[str], limit: float) -> tuple[str, str]:
    """Outcome and last words of pytest in a forked process: survived, killed, died or hung."""
    output = tree.parent / "output"
    child = os.fork()
    if not child:
        _child(tree, tests, output)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            found = re.findall(r"^(?:FAILED|ERROR) (\S+)", output.read_text(errors="replace"), re.MULTILINE)
            return {0: "survived"}.get(code, "killed" if code > 0 else "died"), found[0] if found else f"exit {code}"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung", f"after {limit:.0f} s"


def _child(tree: Path, tests: list[str], output: Path) -> None:
    code = 3
    try:
        os.setsid()
        os.chdir(tree)
        log = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(tree / "src"))
        import pytest

        loaded = "ignore::pytest.PytestAssertRewriteWarning"  # hypothesis is, and asserts nothing
        code = int(pytest.main([*PYTEST, "-x", "-p", "no:cov", "-W", loaded, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def judge(tree: Path, tests: Map, path: str, mutant: Mutant) -> dict[str, Any]:
    """Run a mutant; the row of the log."""
    chosen, start = tests.tests(path, mutant), time.monotonic()
    if not chosen:
        outcome, by = "survived", "no test reaches it"
    else:
        file = tree / path
        source, stat = file.read_text(), file.stat()
        try:
            file.write_text(mutant.apply(source))
            outcome, by = run_forked(tree, chosen, GRACE + 3 * sum(tests.seconds[test] for test in chosen))
        finally:
            file.write_text(source)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    row = {"path": path} | {k: v for k, v in asdict(mutant).items() if k in ("line", "kind", "before", "after", "span")}
    return row | {"outcome": outcome, "by": by, "tests": len(chosen), "seconds": round(time.monotonic() - start, 1)}


def preload() -> None:
    """Import what the tests import, except the package itself, so that forked processes start with it."""
    import anndata  # noqa: F401
    import hypothesis.extra.numpy  # noqa: F401
    import ot  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn  # noqa: F401
    import torch
    import torch.func

    torch.set_num_threads(1)
    if any(name.split(".")[0] == "thalweg" for name in sys.modules):
        raise SystemExit("thalweg is loaded already; forked processes would test it and not the mutant.")


def summarise(rows: list[dict[str, Any]], tests: Map, args: argparse.Namespace) -> dict[str, Any]:
    """The killed share, its interval and the survivors."""
    killed, n = sum(row["outcome"] != "survived" for row in rows), len(rows)
    low, high = binomtest(killed, n).proportion_ci(method="wilson")
    by_file = {
        path: [sum(r["outcome"] != "survived" for r in rows if r["path"] == path), sum(r["path"] == path for r in rows)]
        for path in sorted({row["path"] for row in rows})
    }
    command = f"python benchmarks/reliability/mutation.py --mutants {args.mutants} --seed {args.seed}"
    settings = {"mutants": args.mutants, "budget_seconds": BUDGET, "folders": FOLDERS, "tests": TESTS}
    return results.head(settings, [args.seed], ["torch", "pytest", "hypothesis"], command) | {
        "tests": len(tests.seconds),
        "tests_failing_without_mutant": tests.failing,
        "mutants": n,
        "killed": killed,
        "killed_share": round(killed / n, 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "outcomes": dict(Counter(row["outcome"] for row in rows)),
        "seconds": round(sum(row["seconds"] for row in rows)),
        "killed_and_drawn_by_file": by_file,
        "survivors": [row for row in rows if row["outcome"] == "survived"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long; the next call goes on")
    parser.add_argument("--work", type=Path, help="folder of the copy and the log; by default a temporary one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    work = args.work or Path(tempfile.gettempdir()) / f"thalweg-mutation-{args.seed}-{args.mutants}"
    tree, known, log = work / "tree", work / "map.json", work / "log.jsonl"
    if not known.exists():
        shutil.rmtree(work, ignore_errors=True)
        measured = measure(copy_tree(work), work)
        known.write_text(json.dumps(asdict(measured)))
    raw = json.loads(known.read_text())
    tests = Map(
        raw["seconds"], {path: {int(n): t for n, t in v.items()} for path, v in raw["lines"].items()}, raw["failing"]
    )
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    os.environ.update(environment(tree))
    preload()
    drawn = sample(tree, args.mutants, args.seed)
    control = next(chosen for path, mutant in drawn if (chosen := tests.tests(path, mutant)))
    if not rows and run_forked(tree, control, 300)[0] != "survived":
        raise SystemExit(f"the tests fail without any mutant, see {work / 'output'}.")
    for path, mutant in drawn[len(rows) :]:
        if time.monotonic() > end:
            print(f"{len(rows)} of {args.mutants} done; run the command again to go on")
            return
        rows.append(judge(tree, tests, path, mutant))
        print({k: v for k, v in rows[-1].items() if k != "span"}, flush=True)
        with log.open("a") as stream:
            stream.write(json.dumps(rows[-1]) + "\n")
    summary = summarise(rows, tests, args)
    results.save(args.out, summary)
    print(f"done: {summary['killed']} of {summary['mutants']} killed, {summary['killed_share']:.1%}", args.out)


if __name__ == "__main__":
    main()
