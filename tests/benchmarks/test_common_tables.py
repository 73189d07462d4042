"""Tables: known rows print exactly so, and the pages hold what the files of results say."""

from __future__ import annotations

import pandas as pd
import pytest
from benchmarks.common import results, tables
from benchmarks.common.tables import Column
from benchmarks.images import report
from benchmarks.reliability import card

from benchmarks import readme

ROWS = [
    {"name": "otcfm", "score": {"w1": 0.7924}, "days": [3, 4], "good": True},
    {"name": "copy, before", "score": {"w1": 10}, "days": None, "good": False},
]
COLUMNS = [
    Column("name", "method"),
    Column("score.w1", "W1", ".2f"),
    Column("days", "days"),
    Column("good", "better"),
]
MARKDOWN = """\
| method | W1 | days | better |
| --- | --- | --- | --- |
| otcfm | 0.79 | 3, 4 | yes |
| copy, before | 10.00 |  | no |"""
TERMINAL = """\
method           W1  days  better
otcfm          0.79  3, 4  yes
copy, before  10.00        no"""


def test_known_rows_print_exactly_so() -> None:
    lines = tables.lines_of(ROWS, COLUMNS)
    assert tables.markdown(lines) == MARKDOWN
    assert tables.terminal(lines) == TERMINAL


def test_a_data_frame_prints_with_its_index_and_nothing_where_nothing_is() -> None:
    frame = pd.DataFrame({"w1": [0.12345, float("nan")], "n": [3, 4]}, index=pd.Index(["a", "b"], name="method"))
    assert tables.frame_lines(frame) == [["method", "w1", "n"], ["a", "0.123", "3"], ["b", "", "4"]]
    by_day = frame.assign(w1=[{"3": 0.5, "4": 2.0}] * 2)
    assert tables.frame_lines(by_day, index=False)[1:] == [["3: 0.500 4: 2.000", "3"], ["3: 0.500 4: 2.000", "4"]]
    assert tables.frame_lines(frame.assign(w1=[2500.0, 3.0]), index=False)[1:] == [["2500", "3"], ["3", "4"]]
    assert tables.frame_lines(frame, 1, index=False) == [["w1", "n"], ["0.1", "3"], ["", "4"]]


def test_a_path_that_is_not_there_is_named() -> None:
    assert tables.dig({"a": [{"b": 1}]}, "a.0.b") == 1
    for path in ("a.1", "a.x", "c"):
        with pytest.raises(LookupError, match=rf"no '{path[-1]}' of '{path}' in the results"):
            tables.dig({"a": [{"b": 1}]}, path)


def test_only_what_stands_between_two_marks_is_replaced() -> None:
    page = "x\n<!-- results:a -->\nold\n<!-- /results:a -->\n<!-- results:b --><!-- /results:b -->\ny\n"
    assert tables.marks(page, "results") == ["a", "b"]
    found = tables.fill(page, "results:a", "results:a", "new")
    assert found == page.replace("old", "new")
    with pytest.raises(LookupError, match="no <!-- results:c --> with <!-- /results:c --> after it"):
        tables.fill(page, "results:c", "results:c", "new")


def test_the_readme_holds_the_tables_of_the_files(tmp_path, monkeypatch) -> None:
    text = readme.README.read_text(encoding="utf-8")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    names = tables.marks(text, "results")
    assert names
    emptied = text
    for name in names:
        emptied = tables.fill(emptied, f"results:{name}", f"results:{name}", "")
    readme.README.write_text(emptied, encoding="utf-8")
    readme.main()
    assert readme.README.read_text(encoding="utf-8") == text


def test_the_page_of_the_image_benchmarks_holds_the_tables_of_the_files(tmp_path) -> None:
    text = report.README.read_text(encoding="utf-8")
    for name in tables.marks(text, "results"):
        table = report.markdown(results.load(results.path_of(name)))
        assert tables.fill(text, f"results:{name}", f"results:{name}", table) == text


def test_the_scorecard_leaves_blank_what_is_not_a_case_of_a_package() -> None:
    data = {
        "thalweg": {"1": {"case": "text as time", "passed": True}, "2": {"case": "NaN", "passed": True}},
        "moscot": {"1": {"passed": False}, "0": {"version": "0.5.2"}},
        "peers": {"moscot": {"version": "0.5.2"}},
        "settings": {},
        "trials": {"kills": 50},
    }
    assert card.lines(data) == [
        ["#", "case", "thalweg", "moscot"],
        ["1", "text as time", "pass", "FAIL"],
        ["2", "NaN", "pass", ""],
    ]
