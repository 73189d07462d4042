"""The mutation run: what it changes, what it leaves alone, and which tests it asks."""

from __future__ import annotations

import ast

import numpy as np
from benchmarks.reliability import mutants, mutation

SOURCE = '''"""Docstring with 1 + 1."""

from __future__ import annotations

import math

__all__ = ["f"]
BLOCK = 2**20
Number = int | float
METHODS = {"a": 1}


def f(x: int | None, flag: bool = True) -> float:
    """Docstring."""
    if x is None or not 0 < x <= 3:
        raise ValueError(f"x must be {1 + 1}, found " + "it")
    logger.info("value %d", 7)
    y = [min(x, 2), -x]
    x += 1
    return math.sqrt(x) if flag and y else "none"
'''


def test_every_change_it_makes_is_one_of_those_it_states():
    found = {(m.line, m.before, m.after) for m in mutants.find(SOURCE)}
    assert found == {
        (10, "'a'", "'XXaXX'"),
        (10, "1", "2"),
        (13, "True", "False"),
        (15, "x is None or not 0 < x <= 3", "(x is None and (not 0 < x <= 3))"),
        (15, "x is None", "(x is not None)"),
        (15, "not 0 < x <= 3", "(0 < x <= 3)"),
        (15, "0 < x <= 3", "(0 <= x <= 3)"),
        (15, "0 < x <= 3", "(0 >= x <= 3)"),
        (15, "0 < x <= 3", "(0 < x < 3)"),
        (15, "0 < x <= 3", "(0 < x > 3)"),
        (15, "0", "1"),
        (15, "3", "4"),
        (18, "min", "max"),
        (18, "2", "3"),
        (18, "-x", "(x)"),
        (19, "x += 1", "x -= 1"),
        (19, "1", "2"),
        (20, "math.sqrt", "math.square"),
        (20, "flag and y", "(flag or y)"),
        (20, "'none'", "'XXnoneXX'"),
    }


def test_each_mutant_is_valid_python_and_differs_in_one_place():
    original = ast.unparse(ast.parse(SOURCE))
    for mutant in mutants.find(SOURCE):
        changed = ast.unparse(ast.parse(mutant.apply(SOURCE)))
        differing = [(a, b) for a, b in zip(original.splitlines(), changed.splitlines(), strict=True) if a != b]
        assert len(differing) == 1, mutant
        assert mutant.in_function == (mutant.line > 13)


def test_a_change_over_several_lines_keeps_the_rest():
    source = "def f(a, b):\n    é = (a\n        + b)\n    return é\n"
    (mutant,) = [m for m in mutants.find(source) if m.kind == "BinOp"]
    assert mutant.apply(source) == "def f(a, b):\n    é = ((a - b))\n    return é\n"
    assert mutant.statement == (2, 3)


def test_the_tests_of_a_mutant_are_those_that_reach_it_fastest_first_within_the_budget():
    (mutant,) = [m for m in mutants.find(SOURCE) if m.after == "max"]
    seconds = {"slow": 20.0, "fast": 0.1, "middle": 15.0, "elsewhere": 0.0}
    seconds["law"] = 0.2
    known = mutation.Map(seconds, {"f.py": {18: ["slow", "fast", "middle"], 19: ["elsewhere"]}}, [])
    assert known.tests("f.py", mutant) == ["fast", "middle"]
    assert known.tests("g.py", mutant) == []
    (default,) = [m for m in mutants.find(SOURCE) if m.line == 13]
    assert known.tests("f.py", default) == ["elsewhere", "fast", "law", "middle"]  # of the whole file, and of none


def test_the_sample_repeats_with_its_seed_and_weighs_files_by_their_lines(tmp_path):
    for folder, name, copies in (("core", "long.py", 9), ("data", "short.py", 1)):
        path = tmp_path / "src" / "thalweg" / folder / name
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(f"def f{k}(a, b):\n    return a + b\n\n" for k in range(40 * copies)))
    drawn = mutation.sample(tmp_path, 200, seed=3)
    assert drawn == mutation.sample(tmp_path, 200, seed=3)
    assert drawn != mutation.sample(tmp_path, 200, seed=4)
    assert len({(path, m.span, m.after) for path, m in drawn}) == 200
    long = np.mean([path.endswith("long.py") for path, _ in drawn])
    assert abs(long - 0.9) < 0.08
    assert len(mutation.sample(tmp_path, 10_000, seed=0)) == 400  # all there are
