"""Claims of the pages: their words are there, what would refute them exists, their numbers are those of the files."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from benchmarks.common import tables
from benchmarks.reliability import claims

CLAIMS = claims.load()
GOOD = claims.Claim(
    "README.md", "a plot for each result", "held", ("tests/pl/test_gallery.py::test_every_plot_has_a_picture",)
)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: f"{c.page}: {claims.plain(c.quote)[:40]}")
def test_the_words_stand_in_the_page_and_what_would_refute_them_exists(claim: claims.Claim) -> None:
    assert claims.problems(claim) == []


def test_there_are_a_hundred_from_every_kind_of_page() -> None:
    assert len(CLAIMS) >= 100
    assert len({(c.page, c.quote) for c in CLAIMS}) == len(CLAIMS)
    pages = {c.page for c in CLAIMS}
    assert {"README.md", "SECURITY.md", "CONTRIBUTING.md", "benchmarks/images/README.md"} <= pages
    assert "benchmarks/single_cell/NOTES.md" in pages
    assert sum(page.startswith("docs/") for page in pages) >= 12


FIGURE = {
    "file": "images_steptime",
    "rows": "rows",
    "where": {"objective": "icfm"},
    "path": "step.ratio",
    "spec": ".2f",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quote": "words that no page has"}, "the quote is no longer in the page"),
        ({"test": ()}, "nothing checks it"),
        ({"test": ("tests/pl/test_gallery.py::test_gone",)}, "there is no test tests/pl/test_gallery.py::test_gone"),
        ({"test": ("tests/gone.py::test_gone",)}, "there is no test tests/gone.py::test_gone"),
        ({"command": "python benchmarks/gone.py", "prints": "x"}, "there is no .*gone.py"),
        ({"command": "python -m benchmarks.gone", "prints": "x"}, "there is no .*gone"),
        ({"command": "python benchmarks/readme.py"}, "neither a result nor words"),
        ({"result": "gone.json"}, "there is no file gone.json"),
        ({"figures": ({**FIGURE, "text": "0.98"},)}, "0.98: the file has 0.99"),
        ({"figures": ({**FIGURE, "text": "0.99"},)}, "0.99: this number is not in the quote"),
        ({"figures": ({**FIGURE, "where": {"objective": "x"}, "text": "1"},)}, "0 rows of images_steptime"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    assert claims.problems(GOOD) == []
    (found, *_) = claims.problems(replace(GOOD, **change))
    assert re.search(message, found)


def test_the_table_has_a_row_for_each_claim() -> None:
    lines = claims.lines(CLAIMS)
    assert len(lines) == len(CLAIMS) + 1
    assert tables.terminal(lines).count("\n") == len(CLAIMS)
