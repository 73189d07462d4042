"""What SECURITY.md says about the source and the tests is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from benchmarks.reliability import attacks

import thalweg as tw

SRC = Path(tw.__file__).parent
PAGE = Path(__file__).parents[2] / "SECURITY.md"


def test_the_page_counts_the_attacks() -> None:
    found = re.search(r"makes (\d+) attacks on the reader of h5ad files and (\d+) on stored models", PAGE.read_text())
    assert found is not None
    assert [int(n) for n in found.groups()] == [len(attacks.H5AD), len(attacks.FIT)]


def imports_by_name(source: str) -> list[str]:
    """Calls that import a module whose name is not of this package from its first letters on."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0]
            if isinstance(name, ast.Call) and ast.unparse(name.func).endswith(".get"):  # of a table in the source
                name = name.args[1]
            start = name.values[0] if isinstance(name, ast.JoinedStr) else name
            if not (isinstance(start, ast.Constant) and str(start.value).startswith("thalweg.")):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_nothing_is_imported_that_a_file_could_name(path: Path) -> None:
    assert imports_by_name(path.read_text(encoding="utf-8")) == []


def test_an_import_of_any_name_is_found() -> None:
    for line in ("importlib.import_module(name)", "__import__(entry['module'])", "import_module(f'{x}.y')"):
        assert imports_by_name(line), line
    assert imports_by_name("importlib.import_module(f'thalweg.{name}')") == []
