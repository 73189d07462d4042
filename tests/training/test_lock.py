"""Two processes in one folder: the second is refused and touches nothing, and no row of a table is lost."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import thalweg as tw
from courses import make_course
from thalweg.errors import InputError
from thalweg.flows.score_rows import ScoreRows, Unit
from thalweg.training import Checkpoints
from thalweg.training.lock import lock_folder


def other_process(code: str, *arguments: object) -> subprocess.Popen:
    """A process that runs some code, after which it waits for a line."""
    code = textwrap.dedent(code) + "\nprint('ready', flush=True); input()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


HOLDS = """
    import sys
    from thalweg.training import Checkpoints
    checkpoints = Checkpoints(sys.argv[1], {"run": 1})
"""


def test_a_second_process_is_refused_and_leaves_the_half_written_files_of_the_first(tmp_path):
    first = other_process(HOLDS, tmp_path)
    part = tmp_path / ".step-00000005.1.part"
    part.mkdir()
    for start in (lambda: Checkpoints(tmp_path, {"run": 1}), lambda: Checkpoints(tmp_path, {"run": 1}, resume=True)):
        with pytest.raises(InputError, match="in use by another process that writes into it"):
            start()
        assert part.exists()
    with pytest.raises(InputError, match="in use by another process"):
        tw.tl.fit(make_course(n=20), "time", rng=0, checkpoint_dir=tmp_path)
    first.communicate("\n")
    with Checkpoints(tmp_path, {"run": 1}):  # the first has ended: what it left is of no use
        assert not part.exists()


def test_a_killed_process_gives_its_folder_back(tmp_path):
    first = other_process(HOLDS, tmp_path)
    first.kill()
    first.communicate()
    Checkpoints(tmp_path, {"run": 1}).close()


def test_a_fit_that_fails_before_or_in_training_gives_its_folder_back(tmp_path, quick):
    adata = make_course(n=20)
    with pytest.raises(InputError, match="no unbalanced plans"):
        tw.tl.fit(
            adata, "time", method="uotcfm", rng=0, checkpoint_dir=tmp_path, config=tw.tl.FitConfig(coupling="minibatch")
        )
    tw.tl.fit(adata, "time", method="otcfm", rng=0, checkpoint_dir=tmp_path, config=quick)
    lock_folder(tmp_path).release()


def test_rows_of_two_writers_are_all_kept(tmp_path):
    """Both began in an empty folder; each wrote a row that the other did not know of."""
    one, other = (ScoreRows(tmp_path, {"call": 1}, resume=False) for _ in range(2))
    for rows, method in ((one, "a"), (other, "b"), (one, "c"), (other, "d")):
        rows.collect(Unit(method, 1.0, 0), lambda method=method: {"method": method})
    again = ScoreRows(tmp_path, {"call": 1}, resume=True)
    assert [row["method"] for row in again.rows([Unit(m, 1.0, 0) for m in "abcd"], [])] == list("abcd")


def test_processes_that_write_rows_at_once_lose_none(tmp_path):
    code = """
        import sys
        from thalweg.flows.score_rows import ScoreRows, Unit
        rows = ScoreRows(sys.argv[1], {"call": 1}, resume=True)
        for seed in range(15):
            rows.collect(Unit(sys.argv[2], 1.0, seed), lambda: {"method": sys.argv[2], "seed": seed})
    """
    workers = [other_process(code, tmp_path, name) for name in ("a", "b")]
    for worker in workers:
        worker.communicate("\n")
    units = [Unit(name, 1.0, seed) for name in "ab" for seed in range(15)]
    assert len(ScoreRows(tmp_path, {"call": 1}, resume=True).rows(units, [])) == 30
