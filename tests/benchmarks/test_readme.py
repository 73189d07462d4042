"""The README and the notes: what stands at a mark follows from the files, and says what is absent or kept."""

from __future__ import annotations

import copy
import re

import pytest
from benchmarks.common import results, tables

from benchmarks import readme

TIMED = {
    "machine": {"cores": 2},
    "summary": {
        "otcfm": {"fit_seconds": 4.0, "seeds": 2, "w1_by_day": {"3": 1.0, "4": 1.0}},
        "torchcfm otcfm": {"fit_seconds": 50.0, "seeds": 2, "w1_by_day": {"3": 1.0, "4": 1.0}},
    },
    "rows": [
        {"method": method, "seed": seed, "time": time, "fit_seconds": seconds}
        for method, seed, seconds in (
            ("otcfm", 0, 5.0), ("otcfm", 1, 3.0), ("torchcfm otcfm", 0, 55.0), ("torchcfm otcfm", 1, 45.0),
        )
        for time in (3.0, 4.0)
    ],
}  # fmt: skip


def test_the_time_of_a_fit_is_that_of_the_file_with_its_seeds_and_their_spread() -> None:
    text = " ".join(readme.fit_time(TIMED).split())
    assert "took 4.0 s" in text
    assert "took 50.0 s" in text
    assert "That is 12.5 times as long; seed by seed 11.0 to 15.0 times." in text
    assert "mean over 2 held-out days and 2 seeds, on 2 cores" in text
    one = copy.deepcopy(TIMED)
    one["rows"] = [row for row in one["rows"] if row["seed"] == 0]
    for row in one["summary"].values():
        row["seeds"] = 1
    text = " ".join(readme.fit_time(one).split())
    assert "2 held-out days and 1 seed, on" in text
    assert "seed by seed" not in text


def test_rows_kept_from_an_earlier_run_are_counted() -> None:
    rows = [{"method": m} for m in ("otcfm", "torchcfm otcfm", "torchcfm sf2m")]
    key = "torchcfm_rows_kept_from_an_earlier_run"
    assert readme.kept({key: 0, "rows": rows}) == ""
    assert readme.kept({key: 1, "rows": rows}).startswith("1 of the 2 rows of torchcfm (")
    assert readme.kept({key: 2, "rows": rows}).startswith("All 2 rows of torchcfm (")


@pytest.mark.parametrize("name", ["cite_5_real", "cite_5_index", "cite_50_index", "cite_100_index"])
def test_every_table_of_the_readme_says_what_was_kept(name: str) -> None:
    page = readme.README.read_text(encoding="utf-8")
    text = page.partition(f"<!-- results:{name} -->")[2].partition(f"<!-- /results:{name} -->")[0]
    if not results.path_of(name).exists():
        assert text.strip() == f"Not measured yet: `benchmarks/results/{name}.json` does not exist."
        return
    result = results.load(results.path_of(name))
    assert text.strip() == readme.table(result)
    assert bool(result["torchcfm_rows_kept_from_an_earlier_run"]) == ("kept from an earlier run" in text)


def test_real_days_stand_before_index_time() -> None:
    marks = tables.marks(readme.README.read_text(encoding="utf-8"), "results")
    assert marks == ["cite_5_real", "cite_5_index", "cite_50_index", "cite_100_index"]


def test_a_file_that_is_absent_breaks_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    page = readme.filled(readme.README.read_text(encoding="utf-8"))
    assert page.count("Not measured yet: ") == 5
    assert readme.filled(page) == page
    assert "times as long" not in page


def test_the_notes_hold_the_simulated_courses_of_the_suite() -> None:
    text = readme.NOTES.read_text(encoding="utf-8")
    assert readme.filled(text) == text
    assert "<!-- simulated -->" in text
    rows = readme.simulated(results.load(results.path_of("suite"))).splitlines()[2:]
    w1 = [float(row.split("|")[2]) for row in rows]
    assert w1 == sorted(w1)
    assert len(w1) == 8


def test_every_number_of_the_notes_says_where_it_comes_from() -> None:
    """Each row names a script whose file exists, or the day on which it was typed."""
    text = readme.NOTES.read_text(encoding="utf-8")
    table = text.partition("| idea |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 20
    for row in table:
        source = row.rstrip(" |").rpartition(" | ")[2]
        named = re.findall(r"`(\w+\.py)`", source)
        assert named or re.match(r"typed \d{4}-\d\d-\d\d, run once by hand$", source), source
        assert all((readme.NOTES.parent / name).exists() for name in named), source
        assert all((results.FOLDER / name).exists() for name in re.findall(r"`(\w+\.json)`", source)), source


def test_no_page_types_the_speed_of_a_fit() -> None:
    """It is read from the file; the README's copy stands between marks."""
    root = readme.README.parent
    for page in [root / "README.md", readme.NOTES, *(root / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<!-- fit_time -->.*?<!-- /fit_time -->", "", text, flags=re.S)
        assert not re.search(r"\d times (faster|as long)|1[36] times", text), page.name
