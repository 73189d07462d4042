"""The one way to print a table: as markdown for pages, aligned for a terminal.

A table is a list of lines of text, the headings first. `lines_of` makes it from rows of results and a choice of
columns, `frame_lines` from a data frame; `markdown` and `terminal` print it; `fill` puts text between two marks of a
page.

Used when the documentation is built: nothing but the standard library is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Lines = list[list[str]]


class Column(NamedTuple):
    """What a column shows.

    Attributes
    ----------
    path
        Dotted path to the value in a row; numbers index lists.
    heading
        Its title.
    spec
        Format of its values, such as ``".2f"``.
    """

    path: str
    heading: str
    spec: str = ""


def dig(value: Any, path: str) -> Any:
    """Value at a dotted path; numbers index lists.

    Raises
    ------
    LookupError
        If a part is absent; it is named.
    """
    for part in filter(None, path.split(".")):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise LookupError(f"no {part!r} of {path!r} in the results") from None
    return value


def show(value: Any, spec: str = "") -> str:
    """Text of a cell: nothing for None, yes or no, the entries of a list, else the value in its format."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(show(entry, spec) for entry in value)
    return format(value, spec) if spec else str(value)


def verdict(passed: bool | None) -> str:
    """Text of a case that passed or not; nothing where there is none."""
    return "" if passed is None else "pass" if passed else "FAIL"


def lines_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> Lines:
    """The table of these columns of the rows."""
    return [[c.heading for c in columns], *([show(dig(row, c.path), c.spec) for c in columns] for row in rows)]


def frame_lines(frame: Any, digits: int = 3, *, index: bool = True) -> Lines:
    """The table of a data frame, floats to so many digits after the point, columns of whole numbers to none."""
    flat = frame.reset_index() if index else frame
    columns = [[str(name), *_numbers(list(flat[name]), digits)] for name in flat.columns]
    return [list(line) for line in zip(*columns, strict=True)]


def _numbers(values: list[Any], digits: int) -> list[str]:
    floats = [value for value in values if isinstance(value, float) and value == value]  # NaN differs from itself
    whole = bool(floats) and all(map(float.is_integer, floats))
    return [_number(value, 0 if whole else digits) for value in values]


def _number(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.{digits}f}"
    if isinstance(value, Mapping):
        return " ".join(f"{key}: {_number(entry, digits)}" for key, entry in value.items())
    return show(value)


def markdown(lines: Lines) -> str:
    """The table as markdown."""
    first, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---"] * len(first), *rest))


def terminal(lines: Lines) -> str:
    """The table in aligned columns, those of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(map(_is_number, column[1:])) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _is_number(cell: str) -> bool:
    return not cell or re.fullmatch(r"[-+−]?[\d.,]+(e[-+]\d+)?%?", cell) is not None


def marks(page: str, kind: str) -> list[str]:
    """Names in the marks ``<!-- kind:name -->`` of a page, in order."""
    return re.findall(rf"<!-- {kind}: ?(.*?) -->", page)


def fill(page: str, opening: str, closing: str, text: str) -> str:
    """The page with this text between two marks, ``<!-- opening -->`` and ``<!-- /closing -->``.

    Raises
    ------
    LookupError
        If a mark is not there.
    """
    first, last = f"<!-- {opening} -->", f"<!-- /{closing} -->"
    before, found, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not found or not end:
        raise LookupError(f"the page has no {first} with {last} after it; add both")
    return f"{before}{first}\n{text}\n{last}{after}"
