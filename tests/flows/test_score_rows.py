"""Tables of leave-one-out that are stopped, or lose a fit, keep their finished rows."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import thalweg as tw
from thalweg.errors import CheckpointError, InputError, NonFiniteLossError
from thalweg.flows import evaluate, score_rows

CONFIG = tw.tl.FitConfig(max_steps=24, batch_size=32, width=8, depth=1, validate_every=5, ema_decay=0.9)


def table(adata, directory=None, *, methods=("icfm", "otcfm"), n_seeds=2, resume=False, **options):
    options = {"config": CONFIG, "device": "cpu"} | options
    return tw.tl.leave_one_out(
        adata, "time", methods=methods, n_seeds=n_seeds, checkpoint_dir=directory, resume=resume, **options
    )


def failing(monkeypatch, bad):
    """Fits of ``bad(method, seed index)`` fail; returns the methods fitted."""
    fitted, original = [], evaluate.train_flow

    def train_flow(cells, method, *args, **kwargs):
        fitted.append(method.name)
        if bad(method.name, len(fitted)):
            raise NonFiniteLossError("loss term 'velocity' is nan at step 3")
        return original(cells, method, *args, **kwargs)

    monkeypatch.setattr(evaluate, "train_flow", train_flow)
    return fitted


def columns(frame):
    return frame.drop(columns="fit_seconds")


def test_one_failure_leaves_the_other_rows_and_is_listed(course, monkeypatch, caplog):
    whole = table(course)
    assert whole.attrs["failures"] == []
    failing(monkeypatch, lambda method, k: k == 2)
    frame = table(course)
    lost = (whole["method"] == "icfm") & (whole["seed"] == 1)
    pd.testing.assert_frame_equal(columns(frame), columns(whole[~lost]).reset_index(drop=True))
    assert frame.attrs["failures"] == [
        {"method": "icfm", "time": 1.0, "seed": 1, "error": "NonFiniteLossError: loss term 'velocity' is nan at step 3"}
    ]
    assert "icfm at time 1, seed 1, failed and is left out (NonFiniteLossError" in caplog.text


def test_when_every_fit_fails_the_first_error_is_raised(course, monkeypatch):
    failing(monkeypatch, lambda method, k: True)
    with pytest.raises(NonFiniteLossError, match="step 3"):
        table(course)


def test_a_killed_table_goes_on_and_makes_only_what_is_missing(course, tmp_path, monkeypatch, killed):
    whole = table(course, methods=("icfm", "otcfm", "sf2m"))
    fitted = failing(monkeypatch, lambda method, k: k == 1)  # one failure, then a kill in the third fit
    original = evaluate.train_flow

    def cut(cells, method, *args, **kwargs):
        if len(fitted) == 2:
            killed(5)
        return original(cells, method, *args, **kwargs)

    monkeypatch.setattr(evaluate, "train_flow", cut)
    with pytest.raises(killed.error):
        table(course, tmp_path)
    with pytest.raises(InputError, match=r"scores\.json holds the rows of an earlier call; give resume=True"):
        table(course, tmp_path)
    monkeypatch.setattr(evaluate, "train_flow", original)
    frame = table(course, tmp_path, methods=("icfm", "otcfm", "sf2m"), resume=True)  # a method more
    pd.testing.assert_frame_equal(columns(frame), columns(whole))
    assert fitted == ["icfm", "icfm", "otcfm"] + ["icfm"] + ["otcfm"] * 2 + ["sf2m"] * 2
    assert frame.attrs["failures"] == []
    again = table(course, tmp_path, methods=("otcfm",), n_seeds=1, resume=True)
    kept = whole[whole["method"].isin(["otcfm", *again["method"]]) & (whole["seed"] == 0)].query(
        "method not in ['icfm', 'sf2m']"
    )
    pd.testing.assert_frame_equal(columns(again), columns(kept).reset_index(drop=True))
    assert len(fitted) == 8


def test_stored_rows_of_other_data_options_or_formats_and_damage_are_refused(course, tmp_path, monkeypatch):
    table(course, tmp_path, methods=("icfm",), n_seeds=1)
    options = {"methods": ("icfm",), "n_seeds": 1, "resume": True}
    with pytest.raises(InputError, match=r"scores\.json is of another call: spacing is 'clock' there and 'index' here"):
        table(course, tmp_path, spacing="index", **options)
    with pytest.raises(InputError, match=r"cells\.shape is"):
        table(course[::2].copy(), tmp_path, **options)
    with pytest.raises(InputError, match="resume=True needs checkpoint_dir"):
        table(course, **options)
    path = tmp_path / "scores.json"
    data = path.read_bytes()
    stored = json.loads(data)["content"]["rows"][0][1]["w1"]
    path.write_bytes(data.replace(str(stored).encode(), str(stored + 1).encode()))
    with pytest.raises(CheckpointError, match=r"scores\.json is damaged"):
        table(course, tmp_path, **options)
    path.write_bytes(data)
    monkeypatch.setattr(score_rows, "FORMAT", 0)
    with pytest.raises(CheckpointError, match=r"format 1, this version reads up to 0; upgrade thalweg"):
        table(course, tmp_path, **options)


def test_a_full_disk_costs_the_copy_and_not_the_table(course, tmp_path, monkeypatch, caplog):
    whole = table(course, tmp_path, methods=("icfm",), n_seeds=1)
    stored = (tmp_path / "scores.json").read_bytes()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_rows, "replace_file", full)
    frame = table(course, tmp_path, methods=("icfm", "otcfm"), n_seeds=1, resume=True)
    assert set(frame["method"]) == {*whole["method"], "otcfm"}
    assert "could not be written ([Errno 28] No space left on device)" in caplog.text
    assert (tmp_path / "scores.json").read_bytes() == stored
    with pytest.raises(InputError, match="cannot be written"):
        table(course, tmp_path / "scores.json" / "folder", methods=("icfm",))
