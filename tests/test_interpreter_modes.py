"""`python -O`, which drops `assert`, and `python -W error`: the package works, and these tests are still tests."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg as tw

SCRIPT = Path(__file__).with_name("strict_run.py")


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(Path(tw.__file__).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=env)


WARNINGS = ("-W", "error", "-W", "ignore:invalid escape sequence")  # of POT, when its bytecode is not cached


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-O", *WARNINGS), id="-O -W error"),
        pytest.param(("-O",), id="-O", marks=pytest.mark.slow),  # each is a process that imports everything
        pytest.param(WARNINGS, id="-W error", marks=pytest.mark.slow),
    ],
)
def test_fits_files_and_refusals_without_assert_and_with_warnings_as_errors(options, tmp_path):
    done = run(*options, SCRIPT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all checks passed"


def test_the_checks_of_that_run_do_not_rest_on_assert(tmp_path):
    assert not [node for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Assert)]
    broken = tmp_path / "broken.py"
    broken.write_text(SCRIPT.read_text().replace('"two or more times"', '"another message"'))
    assert broken.read_text() != SCRIPT.read_text()
    done = run("-O", broken, tmp_path)
    assert done.returncode == 1
    assert "failed: the message says 'another message'" in done.stderr


@pytest.mark.parametrize("body", ["assert False", "assert helper.check(1) == 2", "import helper; helper.refuse()"])
def test_a_failing_test_fails_under_optimisation(tmp_path, body):
    """pytest turns `assert` of test modules into `raise` before Python could drop it, with and without ``-O``."""
    (tmp_path / "test_it.py").write_text(f"import helper\n\n\ndef test_it():\n    {body}\n")
    (tmp_path / "helper.py").write_text("def check(x):\n    return x\n\n\ndef refuse():\n    assert False\n")
    (tmp_path / "conftest.py").write_text("import pytest\n\npytest.register_assert_rewrite('helper')\n")
    done = run("-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout


def test_no_source_validates_by_assert():
    """What ``-O`` would drop: the package has none."""
    for path in Path(tw.__file__).parent.rglob("*.py"):
        assert not [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)], path
