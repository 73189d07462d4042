"""The image benchmarks use the core and the training loop, and nothing else of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks" / "images").glob("*.py"))
ALLOWED = ("thalweg.core", "thalweg.training", "thalweg.errors")


def imported(source: str) -> set[str]:
    """Modules of the package that a source names in an import, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "thalweg":
            names |= {f"thalweg.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.split(".")[0] == "thalweg"}


def forbidden(source: str) -> set[str]:
    return {name for name in imported(source) if not any(name == a or name.startswith(a + ".") for a in ALLOWED)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_file_imports_core_and_training_only(path: Path) -> None:
    assert forbidden(path.read_text()) == set()


def test_the_check_finds_other_rooms() -> None:
    source = "import thalweg as tw\nfrom thalweg import tl, core\ndef f():\n    from thalweg.data.cells import x\n"
    assert forbidden(source) == {"thalweg", "thalweg.tl", "thalweg.data.cells"}


def test_nothing_else_is_loaded_when_the_benchmarks_run() -> None:
    code = (
        "import sys, benchmarks.images.__main__\n"
        "rooms = {n.split('.')[1] for n in sys.modules if n.startswith('thalweg.') and not n.startswith('thalweg._')}\n"
        "assert rooms <= {'core', 'training', 'errors'}, rooms\n"
        "assert 'anndata' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
