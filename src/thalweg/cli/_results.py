"""What the commands do with the result of a function: the files they write."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import thalweg as tw

if TYPE_CHECKING:
    import pandas as pd


class File(NamedTuple):
    """An option that names a file to write."""

    name: str
    help: str
    required: bool = False
    default: str | None = None
    suffixes: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option as it is written."""
        return f"--{self.name}"

    @property
    def place(self) -> str:
        """Its name among the arguments that were given."""
        return self.name.replace("-", "_")


class Done(NamedTuple):
    """What a function returned (the AnnData it wrote into, if None), its arguments, and the files."""

    found: Any
    arguments: Mapping[str, Any]
    files: Mapping[str, Path]
    source: Path


@dataclass(frozen=True)
class Result:
    """Files that a command writes, and what writes them; ``keeps_input`` where the first may be the input."""

    files: tuple[File, ...]
    write: Callable[[Done], None]
    keeps_input: bool = False

    def suffixes(self, name: str) -> tuple[str, ...]:
        """What the name of a file may end with; empty for any."""
        return next(file.suffixes for file in self.files if file.name == name)


class Table(NamedTuple):
    """An option for a table that a function of ``tw.get`` makes, with what the function is given beside its key."""

    name: str
    function: str
    given: Mapping[str, Any] = MappingProxyType({})

    @property
    def file(self) -> File:
        """The option."""
        what = " ".join(map(str, self.given.values())) or "result"
        return File(self.name, f"also write the table of the {what} here, as of tw.get.{self.function}")

    def of(self, done: Done) -> pd.DataFrame:
        """The table, of the key that was written."""
        function = getattr(tw.get, self.function)
        given = {**done.arguments, "key": done.arguments.get("key_added"), **self.given}
        known = {name for name in inspect.signature(function).parameters if given.get(name) is not None}
        frame: pd.DataFrame = function(done.found, **{name: given[name] for name in known})
        return frame


def h5ad(*tables: Table, new: bool = False) -> Result:
    """An AnnData, and tables of it; ``new`` if its cells are not those of the input."""
    output = File("output", "h5ad to write" + ("" if new else "; may be the input"), required=True)

    def write(done: Done) -> None:
        _write(done.files["output"], done.found.write_h5ad)
        for table in tables:
            if table.name in done.files:
                _csv(table.of(done), done.files[table.name])

    return Result((output, *(table.file for table in tables)), write, keeps_input=not new)


def _csv(frame: pd.DataFrame, path: Path) -> None:
    _write(path, lambda part: frame.to_csv(part, index=False))


def _scores(done: Done) -> None:
    from thalweg.cli._summary import summary

    print(summary(done.found))
    if "csv" in done.files:
        _csv(done.found, done.files["csv"])
    if "figure" in done.files:
        import matplotlib as mpl

        mpl.use("Agg")
        figure: Any = tw.pl.leave_one_out(done.found, show=False).figure
        kind = done.files["figure"].suffix[1:]
        _write(done.files["figure"], lambda path: figure.savefig(path, dpi=150, format=kind))


def _page(done: Done) -> None:
    from thalweg.cli._report import page

    key = done.arguments.get("key_added", "assessment")
    text = page(done.found, done.source.name, key=key)
    print(f"verdict: {done.found.uns[key]['verdict']}")
    _write(done.files["output"], lambda path: path.write_text(text, encoding="utf-8"))


SCORES = Result(
    (
        File("csv", "write every row here"),
        File("figure", "write the figure here", suffixes=(".png", ".pdf", ".svg")),
    ),
    _scores,
)
PAGE = Result((File("output", "page to write (default: report.html)", default="report.html"),), _page)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the place, then move there: a write that fails leaves what was there, the input above all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    there = path.exists()
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    print(f"{'replaced' if there else 'wrote'} {path}")
