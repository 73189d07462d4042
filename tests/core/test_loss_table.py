"""The table of proofs in the docs: it lists the rows there are, and its script refuses a row without a proof."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "scripts" / "loss_table.py"


@pytest.fixture
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loss_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_exactly_the_rows_with_the_recorded_figures(table):
    rows = table.read_rows()
    proofs = json.loads(table.RESULTS.read_text(encoding="utf-8"))["proofs"]
    assert list(proofs) == [row["id"] for row in rows]
    assert table.PAGE.read_text(encoding="utf-8") == table.render(rows, proofs)
    for row_proofs in proofs.values():
        assert row_proofs
        assert all(p["error"] <= p["tolerance"] for p in row_proofs)


def test_every_named_test_exists(table):
    root = SCRIPT.parents[2]
    for row_proofs in json.loads(table.RESULTS.read_text(encoding="utf-8"))["proofs"].values():
        for p in row_proofs:
            file, _, name = p["test"].partition("::")
            assert f"def {name}(" in (root / file).read_text(encoding="utf-8")


def test_rows_are_complete_and_fit_a_table(table):
    rows = table.read_rows()
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "group", "objective", "formula", "source", "reachable"}
        assert not any("|" in value or "\n" in value for value in row.values())


def test_a_row_without_a_proof_and_a_proof_without_a_row_are_named(table):
    rows = [{"id": "a"}, {"id": "b"}]
    record = {"row": "a", "test": "tests/x.py::test_y[1]", "error": 0.25, "tolerance": 1.0}
    with pytest.raises(SystemExit, match="rows without a proof: b; "):
        table.join(rows, [record])
    with pytest.raises(SystemExit, match=r"not in loss_rows\.toml: c;"):
        table.join(rows, [record, {**record, "row": "b"}, {**record, "row": "c"}])


def test_the_largest_error_of_the_cases_of_a_test_is_kept(table):
    record = {"row": "a", "test": "tests/x.py::test_y[1]", "error": 0.25, "tolerance": 1.0}
    cases = [record, {**record, "test": "tests/x.py::test_y[2]", "error": 0.5}, {**record, "tolerance": 2.0}]
    assert table.join([{"id": "a"}], cases) == {
        "a": [
            {"test": "tests/x.py::test_y", "error": 0.5, "tolerance": 1.0},
            {"test": "tests/x.py::test_y", "error": 0.25, "tolerance": 2.0},
        ]
    }
