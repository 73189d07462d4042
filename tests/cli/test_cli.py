"""The command line: the same as the functions, errors on one line."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import pandas as pd
import pytest

import thalweg as tw
from thalweg.cli import main
from thalweg.cli._commands import summary


@pytest.fixture
def path(tmp_path, course):
    course.write_h5ad(tmp_path / "course.h5ad")
    return tmp_path / "course.h5ad"


def test_fit_writes_a_file_that_predicts(path, tmp_path, capsys):
    out = tmp_path / "fitted.h5ad"
    assert main(["fit", str(path), "--time-key", "time", "--max-steps", "30", "--output", str(out)]) == 0
    assert tw.tl.interpolate(ad.read_h5ad(out), 2.0).n_obs == 240
    assert "fitted usb" in capsys.readouterr().out


def test_leave_one_out_prints_the_table_and_writes_both_files(path, tmp_path, capsys):
    csv, figure = tmp_path / "scores.csv", tmp_path / "scores.png"
    args = ["leave-one-out", str(path), "--time-key", "time", "--methods", "icfm", "--seeds", "1", "--max-steps", "30"]
    assert main([*args, "--csv", str(csv), "--figure", str(figure)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("icfm", "copy-previous", "ot-midpoint", "floor"))
    assert set(pd.read_csv(csv)["method"]) == {"icfm", "copy-previous", "ot-midpoint", "floor", "floor-corrected"}
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["fit", "nowhere.h5ad", "--time-key", "time", "--output", "x.h5ad"], "'nowhere.h5ad' is not a file"),
        (["leave-one-out", "{path}", "--time-key", "day"], "columns that exist: 'time'"),
        (["fit", "{path}", "--time-key", "time", "--method", "magic", "--output", "x.h5ad"], "choose one of"),
        (["fit", "{path}", "--time-key", "time", "--output", "{path}.d/x.h5ad"], "x.h5ad' does not exist; make it"),
        (["leave-one-out", "{path}", "--time-key", "time", "--csv", "{path}.d/x.csv"], "x.csv' does not exist"),
        (["leave-one-out", "{path}", "--time-key", "time", "--figure", "{path}.d/x.png"], "x.png' does not exist"),
    ],
)
def test_errors_are_one_line_and_a_status(path, capsys, args, match):
    assert main([a.format(path=path) for a in args]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("thalweg: error:")
    assert match in error


def test_a_folder_that_does_not_exist_is_refused_before_training(path, tmp_path, monkeypatch):
    monkeypatch.setattr(tw.tl, "fit", lambda *args, **kwargs: pytest.fail("trained first"))
    assert main(["fit", str(path), "--time-key", "time", "--output", str(tmp_path / "no" / "x.h5ad")]) == 1


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"thalweg {tw.__version__}\n"


def test_summary_averages_over_times_then_seeds():
    rows = [("a", 1.0, 0, 1.0), ("a", 2.0, 0, 3.0), ("a", 1.0, 1, 2.0), ("a", 2.0, 1, 4.0), ("floor", 1.0, 0, 0.5)]
    scores = pd.DataFrame(rows, columns=["method", "time", "seed", "w1"])
    scores[["w1_both_ends", "share", "energy_distance", "variance_ratio", "fit_seconds"]] = 1.0
    lines = summary(scores).splitlines()
    assert "2.500 ± 0.707" in lines[1]  # seeds: 2 and 3
    assert lines[-1].startswith("floor")


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "mean cosine" in text
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_python_dash_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "thalweg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"thalweg {tw.__version__}\n"
    failed = subprocess.run(
        [sys.executable, "-m", "thalweg", "fit", "no.h5ad", "--time-key", "t", "--output", "x.h5ad"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert "thalweg: error:" in failed.stderr
