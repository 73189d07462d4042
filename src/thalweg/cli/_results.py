"""What the commands do with the result of a function: the files they write."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
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


_CSV = File("csv", "also write a table of the result here")


def h5ad(*, table: str | None = None, new: bool = False) -> Result:
    """An AnnData, and the table that a function of ``tw.get`` makes of it; ``new`` if it has other cells."""
    output = File("output", "h5ad to write" + ("" if new else "; may be the input"), required=True)

    def write(done: Done) -> None:
        _write(done.files["output"], done.found.write_h5ad)
        if table is not None and "csv" in done.files:
            _write(done.files["csv"], lambda path: _table(table, done).to_csv(path, index=False))

    return Result((output, _CSV) if table else (output,), write, keeps_input=not new)


def _table(name: str, done: Done) -> pd.DataFrame:
    """The table, of the key that was written."""
    function = getattr(tw.get, name)
    given = dict(done.arguments) | {"key": done.arguments.get("key_added")}
    known = inspect.signature(function).parameters
    frame: pd.DataFrame = function(
        done.found, **{key: value for key, value in given.items() if key in known and value is not None}
    )
    return frame


def _scores(done: Done) -> None:
    print(summary(done.found))
    if "csv" in done.files:
        _write(done.files["csv"], lambda path: done.found.to_csv(path, index=False))
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


def summary(scores: pd.DataFrame) -> str:
    """Readable table of a leave-one-out: best method first, references among them, the floors last.

    The sd is over seeds of the mean over held-out times, as the field reports it. ``W1`` is that of the cells of the
    time before, ``both ends`` that of the default prediction, ``share`` how much of the way from copying to a fresh
    sample it covers, the energy distance and the variance those of its sample.
    """
    figures = ["w1", "w1_both_ends", "energy_distance", "variance_ratio", "fit_seconds"]
    per_seed = scores.groupby(["method", "seed"])[figures].mean()
    mean, sd = per_seed.groupby("method").mean(), per_seed.groupby("method")["w1"].std()
    times = scores.pivot_table(index="method", columns="time", values="w1")
    table = pd.DataFrame(
        {"W1": [f"{m:.3f}" + (f" ± {s:.3f}" if s == s else "") for m, s in zip(mean["w1"], sd, strict=True)]},
        mean.index,
    )
    table["both ends"] = mean["w1_both_ends"].map("{:.3f}".format)
    table["share"] = scores.groupby("method")["share"].mean().map(lambda s: f"{s:.0%}" if s == s else "")
    for time in times.columns:
        table[f"W1 at {time:g}"] = times[time].map("{:.3f}".format)
    table["energy"] = mean["energy_distance"].map(lambda e: f"{e:.4f}" if e == e else "")
    table["variance ratio"] = mean["variance_ratio"].map(lambda r: f"{r:.2f}" if r == r else "")
    table["fit (s)"] = mean["fit_seconds"].map(lambda s: f"{s:.1f}" if s else "")
    order = sorted(table.index, key=lambda name: (name.startswith("floor"), mean.loc[name, "w1"]))
    text: str = table.loc[order].rename_axis(None).to_string()
    return text
