"""What the pages claim, and what would refute each claim.

    python -m benchmarks.reliability.claims          # the table: page, words, how they are checked, what was found
    python -m benchmarks.reliability.claims --run    # runs the cheap tests and commands as well

The claims are in `claims.toml`. Each quotes a page word for word, so that a page that changes is noticed, and names at
least one of these:

- ``test``: tests that fail if the claim is wrong;
- ``command``, with the ``result`` that it writes or what it ``prints``: what measures the claim again;
- ``figures``: numbers in the quote, each with its place in a file of ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import ast
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.common import results, tables

CLAIMS = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Claim:
    """A claim of a page.

    Attributes
    ----------
    page
        File, from the root of the repository.
    quote
        Its words; spaces and line ends count alike.
    verdict
        ``held``, ``wrong:`` with what the page said and what it says now, or what cannot be checked.
    test
        Names of tests, such as ``tests/x.py::test_y``.
    command, result, prints
        What measures the claim; the file in ``benchmarks/results`` that it writes; what it prints.
    figures
        Numbers: ``file``, ``path``, ``spec`` and ``text``, and for a list ``where`` to choose its entry.
    cheap
        Whether its tests or its command take a few seconds.
    """

    page: str
    quote: str
    verdict: str
    test: tuple[str, ...] = ()
    command: str = ""
    result: str = ""
    prints: str = ""
    figures: tuple[Mapping[str, Any], ...] = ()
    cheap: bool = True


def load(path: Path = CLAIMS) -> list[Claim]:
    """The claims of a file."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
    return [Claim(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}) for entry in entries]


def problems(claim: Claim) -> list[str]:
    """What is wrong with the claim's entry: words that are gone, checks that do not exist, numbers that differ."""
    found = [] if plain(claim.quote) in _page(claim.page) else ["the quote is no longer in the page"]
    if not (claim.test or claim.command or claim.figures):
        found.append("nothing checks it")
    found += [f"there is no test {name}" for name in claim.test if not _has_test(name)]
    if claim.command and not (script := script_of(claim.command)).exists():
        found.append(f"there is no {script}")
    if claim.command and not (claim.result or claim.prints):
        found.append("the command has neither a result nor words that it prints")
    if claim.result and not (results.FOLDER / claim.result).exists():
        found.append(f"there is no file {claim.result} of results")
    return found + [message for figure in claim.figures for message in _differs(figure, claim.quote)]


def plain(text: str) -> str:
    """Text with every run of spaces and line ends as one space."""
    return " ".join(text.split())


@cache
def _page(name: str) -> str:
    return plain((results.ROOT / name).read_text(encoding="utf-8"))


@cache
def _tests_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _has_test(name: str) -> bool:
    file, _, function = name.partition("::")
    return function.startswith("test_") and function in _tests_in(results.ROOT / file)


def script_of(command: str) -> Path:
    """File that a command ``python path`` or ``python -m module`` runs."""
    words = shlex.split(command)[1:]
    if words[0] != "-m":
        return results.ROOT / words[0]
    for root in (results.ROOT, results.ROOT / "src"):
        path = root.joinpath(*words[1].split("."))
        for file in (path.with_suffix(".py"), path / "__main__.py"):
            if file.exists():
                return file
    return results.ROOT / words[1]


def _differs(figure: Mapping[str, Any], quote: str) -> list[str]:
    """What is wrong with a number of the quote; a leading zero is left out in some pages."""
    value = tables.dig(results.load(results.path_of(figure["file"])), figure.get("rows", ""))
    if "where" in figure:
        value = [row for row in value if all(tables.dig(row, k) == v for k, v in figure["where"].items())]
        if len(value) != 1:
            return [f"{len(value)} rows of {figure['file']} are {dict(figure['where'])}"]
        value = value[0]
    shown = tables.show(tables.dig(value, figure["path"]), figure.get("spec", "")).replace("-", "−")
    wrong = [] if shown.replace("0.", ".", 1) == figure["text"].replace("0.", ".", 1) else [f"the file has {shown}"]
    return [f"{figure['text']}: {message}" for message in wrong + _absent(figure["text"], quote)]


def _absent(text: str, quote: str) -> list[str]:
    return [] if text in quote else ["this number is not in the quote"]


def lines(claims: list[Claim]) -> tables.Lines:
    """The table of the claims."""
    rows = [{"n": n, "claim": claim, "by": _by(claim)} for n, claim in enumerate(claims, 1)]
    short = [(r, plain(r["claim"].quote)) for r in rows]
    body = [
        [str(r["n"]), r["claim"].page, _cut(quote, 60), r["by"], tables.show(r["claim"].cheap), r["claim"].verdict]
        for r, quote in short
    ]
    return [["#", "page", "words", "checked by", "cheap", "found"], *body]


def _by(claim: Claim) -> str:
    names = [name.partition("::")[2] for name in claim.test]
    figures = sorted({f"{figure['file']}.json" for figure in claim.figures})
    return ", ".join([*names, *filter(None, [claim.command]), *figures])


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def run(claims: list[Claim]) -> int:
    """Run the cheap tests together and the cheap commands one by one; the number of those that failed."""
    cheap = [claim for claim in claims if claim.cheap]
    names = sorted({name for claim in cheap for name in claim.test})
    failed = int(
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-n0", *names], cwd=results.ROOT).returncode != 0
    )
    for claim in cheap:
        if claim.command:
            words = [sys.executable, *shlex.split(claim.command)[1:]]
            done = subprocess.run(words, cwd=results.ROOT, capture_output=True, text=True)
            good = done.returncode == 0 and plain(claim.prints) in plain(done.stdout)
            print(f"{tables.verdict(good)}: {claim.command}")
            failed += not good
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="run the cheap tests and commands")
    args = parser.parse_args()
    claims = load()
    print(tables.terminal(lines(claims)))
    wrong = [(claim, message) for claim in claims for message in problems(claim)]
    for claim, message in wrong:
        print(f"{claim.page}: {_cut(plain(claim.quote), 60)!r}: {message}")
    corrected = sum(claim.verdict.startswith("wrong") for claim in claims)
    print(f"{len(claims)} claims, of which {corrected} were wrong and are corrected; {len(wrong)} problems now")
    if len(wrong) + (run(claims) if args.run else 0):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
