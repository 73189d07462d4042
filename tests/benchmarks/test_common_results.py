"""Files of results: whole or as they were, the same entries in each, earlier rows kept when a run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from benchmarks.common import results
from benchmarks.reliability import scorecard

STORED = sorted(results.FOLDER.glob("*.json"))
COMMON = sorted((results.ROOT / "benchmarks" / "common").glob("*.py"))


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_a_stored_file_is_read_and_written_to_the_same(path: Path, tmp_path: Path) -> None:
    # Some were written with NaN, for what was not timed; now that is null.
    whole = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
    assert results.load(results.save(tmp_path / "sub" / "copy.json", results.load(path))) == whole


def test_a_run_killed_while_it_writes_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.save(path, {"rows": [1]})
    code = (
        "import os, pathlib, signal, sys\n"
        "from benchmarks.common import results\n"
        "os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)\n"
        "results.save(pathlib.Path(sys.argv[1]), {'rows': list(range(100_000))})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=results.ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert results.load(path) == {"rows": [1]}
    results.save(path, {"rows": [2]})
    assert results.load(path) == {"rows": [2]}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]  # what the kill left behind is gone


def test_what_is_no_json_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results.save(tmp_path / "r.json", {"rows": [1]})
    with pytest.raises(TypeError, match="not JSON serializable"):
        results.save(path, {"rows": [2], "more": object()})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        results.save(path, {"rows": [3]})
    assert results.load(path) == {"rows": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_numbers_of_numpy_become_those_of_json_and_what_is_not_finite_null() -> None:
    found = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.array([[1.0, np.nan]]),
        "d": (np.bool_(True), float("inf"), None),
        np.int64(7): {"path": Path("x")},
    }
    plain = results.plain(found)
    assert json.dumps(plain) == '{"a": 0.5, "b": 3, "c": [[1.0, null]], "d": [true, null, null], "7": {"path": "x"}}'


def test_every_file_begins_alike_and_names_no_place_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = str(results.ROOT / "benchmarks" / "single_cell" / "cite.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [main.__file__, "--dims", "5", "--out", "/somewhere/r.json"])
    command = "python benchmarks/single_cell/cite.py --dims 5 --out r.json"
    settings = {"dims": 5, "methods": ["otcfm"], "out": Path("/somewhere/r.json")}
    head = results.head(settings, range(2), ["numpy", "no-such-package"])
    assert list(head) == ["command", "settings", "seeds", "versions", "machine"]
    assert head["command"] == command
    main.__spec__ = ModuleSpec("benchmarks.images.__main__", None)
    assert results.command_line() == "python -m benchmarks.images --dims 5 --out r.json"
    assert head["settings"] == {"dims": 5, "methods": ["otcfm"]}
    assert head["seeds"] == [0, 1]
    assert head["versions"]["numpy"] == np.__version__
    assert head["versions"]["thalweg"]
    assert head["versions"]["no-such-package"] is None
    assert set(head["machine"]) == {"cpu", "cores", "threads", "load"}
    assert "/somewhere" not in json.dumps(head)


def test_a_resumed_run_keeps_rows_and_replaces_those_it_makes_again(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert results.kept_rows(path) == []
    first = [{"method": m, "time": t, "w1": 1.0} for m in ("torchcfm", "ours") for t in (3, 4)]
    results.save(path, {"rows": first})
    kept = results.kept_rows(path, lambda row: row["method"] == "torchcfm")
    assert kept == first[:2]
    assert ("torchcfm", 3.0) in results.keys_of(kept, "method", "time")
    new = [{"method": "torchcfm", "time": 3.0, "w1": 2.0}, {"method": "ours", "time": 3, "w1": 3.0}]
    assert results.merged(kept, new, "method", "time") == [new[0], first[1], new[1]]
    with pytest.raises(results.ResultError, match="has no time"):
        results.merged(kept, [{"method": "ours"}], "method", "time")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(results.ResultError, match=r"r\.json does not exist"):
        results.load(tmp_path / "r.json")
    (tmp_path / "r.json").write_text('{"rows": [')
    with pytest.raises(results.ResultError, match=r"r\.json is not readable as JSON"):
        results.load(tmp_path / "r.json")


def test_cases_of_the_scorecard_run_again_take_the_place_of_the_earlier_ones() -> None:
    earlier = results.load(results.path_of("scorecard"))
    score = {"9": {"case": "again", "passed": False, "figure": "", "seconds": 0.1}}
    found = scorecard.collect(score, {}, earlier)
    assert found["passed"] == earlier["passed"] - 1
    assert list(found["thalweg"]) == list(earlier["thalweg"])
    assert found["thalweg"]["9"]["case"] == "again"
    assert found["thalweg"]["10"] == earlier["thalweg"]["10"]
    assert found["moscot"]["9"] == earlier["moscot"]["9"]
    assert found["peers"]["moscot"]["version"] == "0.5.2"
    again = scorecard.collect({}, {}, json.loads(json.dumps(found)))
    assert again == found


@pytest.mark.parametrize("path", COMMON, ids=lambda p: p.stem)
def test_what_is_shared_loads_nothing_of_the_package_and_no_library(path: Path) -> None:
    # The pages load it, and so does the interpreter of a peer, which has neither thalweg nor torch.
    code = (
        f"import sys, benchmarks.common.{path.stem}\n"
        "found = {n.split('.')[0] for n in sys.modules} & {'thalweg', 'torch', 'numpy', 'pandas', 'anndata'}\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=results.ROOT)
