"""Writes cut short by a kill or a full disk; runs that end in a loss that is not finite."""

from __future__ import annotations

import errno
import os
import resource

import pytest
import torch
from small_run import CONFIG, IDENTITY, Killed, equal, network, objective, run, validation

from thalweg.errors import InputError, NonFiniteLossError
from thalweg.training import Checkpoints, checkpoint, files, load_weights, saving, train
from thalweg.training.checkpoint import folders, latest_checkpoint, write_checkpoint

# --- a write that is cut short ---------------------------------------------------------------------------------------


def cut(monkeypatch, at, error, *, half=True, clean=True):
    """Make the ``at``-th file operation of a write fail half-way; returns the counter."""
    count = [0]

    def wrap(function, partial=None):
        def wrapped(*args):
            count[0] += 1
            if count[0] == at:
                if partial is not None and half:
                    partial(*args)
                raise error
            return function(*args)

        return wrapped

    def half_file(path, data):
        path.write_bytes(data[: len(data) // 2])

    write = wrap(files.write_file, half_file)
    for module in (checkpoint, files):
        monkeypatch.setattr(module, "write_file", write)
        monkeypatch.setattr(module, "sync_folder", wrap(files.sync_folder))
    monkeypatch.setattr(os, "replace", wrap(os.replace))
    if not clean:  # a killed process cleans nothing
        monkeypatch.setattr(checkpoint, "remove_leftovers", lambda directory: None)
    return count


def two_tensors(value):
    return {"model": {"w": torch.full((100,), float(value))}, "best": {"w": torch.zeros(3)}}


def test_killed_at_every_file_operation_the_checkpoint_before_or_the_new_one_is_whole(tmp_path, caplog):
    seen, operations = [], None
    for at in range(1, 100):
        directory = tmp_path / str(at)
        directory.mkdir()
        write_checkpoint(directory, 1, two_tensors(1), {})
        with pytest.MonkeyPatch.context() as patch:
            count = cut(patch, at, Killed(), clean=False)
            try:
                write_checkpoint(directory, 2, two_tensors(2), {})
            except Killed:
                pass
            else:
                operations = count[0]
        found = latest_checkpoint(directory)
        assert (found.tensors["model"]["w"] == found.step).all()
        seen.append(found.step)
        write_checkpoint(directory, 3, two_tensors(3), {})  # goes on, and cleans up
        assert latest_checkpoint(directory).step == 3
        assert not list(directory.glob(".*"))
        if operations is not None:
            break
    assert operations is not None
    assert operations == at - 1 >= 8  # four files, their folder, two renames, LATEST: each was the last at some time
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (1, 2)
    assert not caplog.text


@pytest.mark.parametrize("at", range(1, 11))
def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(tmp_path, whole, caplog, at):
    with pytest.raises(Killed):
        run(tmp_path, at=8)
    with pytest.MonkeyPatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device")
        cut(patch, at, full)
        assert equal(run(tmp_path, resume=True, every=100), whole)  # one write, at the end, which fails
    assert "could not be written ([Errno 28] No space left on device); training goes on" in caplog.text
    assert [p.name for p in tmp_path.glob(".*")] == [".lock"]  # of the folder, not of a write
    found = latest_checkpoint(tmp_path)
    assert found.step == 5 or (at > 9 and found.step == 40)
    assert equal(run(tmp_path, resume=True), whole) or found.step == 40


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    """The system's own refusal in place of a simulated one."""
    write_checkpoint(tmp_path, 1, two_tensors(1), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_checkpoint(tmp_path, 2, {"model": {"w": torch.zeros(10_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert latest_checkpoint(tmp_path).step == 1
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["LATEST", "step-00000001"]


def test_the_last_ones_are_kept_and_an_abandoned_future_goes(tmp_path):
    for step in (1, 2, 3, 10, 11):
        write_checkpoint(tmp_path, step, two_tensors(step), {}, keep=3)
    assert [p.name[-2:] for p in folders(tmp_path)] == ["03", "10", "11"]
    write_checkpoint(tmp_path, 4, two_tensors(4), {}, keep=3)
    assert [p.name[-2:] for p in folders(tmp_path)] == ["03", "04"]
    assert latest_checkpoint(tmp_path).step == 4
    write_checkpoint(tmp_path, 4, two_tensors(44), {}, keep=3)  # the same step again
    assert latest_checkpoint(tmp_path).tensors["model"]["w"][0] == 44


# --- a loss that is not finite ---------------------------------------------------------------------------------------


def breaking(step):
    calls = [0]

    def broken(model, n, generator):
        calls[0] += 1
        terms = objective(model, n, generator)
        return terms | {"bad": terms["fit"] * (float("nan") if calls[0] == step else 0.0)}

    return broken


def train_broken(step, directory=None, resume=False):
    model = network()
    points = None if directory is None else Checkpoints(directory, IDENTITY, resume=resume, every=5)
    with pytest.raises(NonFiniteLossError) as caught:
        train(model, breaking(step), CONFIG, torch.Generator().manual_seed(1), checkpoints=points, progress=False)
    return model, caught.value


def test_the_last_finite_weights_are_kept_and_written(tmp_path):
    model, error = train_broken(13, tmp_path)
    assert "'bad' is nan at step 13" in str(error)
    assert "the weights of step 12, the last finite ones, are kept. " in str(error)
    assert str(tmp_path / "step-00000012") in str(error)
    kept = load_weights(tmp_path, "model")
    reference = network()
    with pytest.raises(NonFiniteLossError):  # twelve steps of the same run, stopped by its own breaking
        train(reference, breaking(13), CONFIG, torch.Generator().manual_seed(1), progress=False)
    for name, value in reference.state_dict().items():
        assert torch.equal(kept[name], value)
        assert torch.equal(error.weights[name], value)
        assert torch.equal(model.state_dict()[name], value)
    with pytest.raises(InputError, match=r"stopped: loss term 'bad' is nan at step 13.*another checkpoint_dir"):
        Checkpoints(tmp_path, IDENTITY, resume=True)


def test_weights_that_are_not_finite_themselves_are_not_kept():
    model = network()

    def diverging(model, n, generator):
        with torch.no_grad():
            next(model.parameters()).fill_(float("inf"))  # as an overflowing update would
        return objective(model, n, generator)

    start = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NonFiniteLossError, match="the weights of step 0, the last finite ones"):
        train(model, diverging, CONFIG, torch.Generator().manual_seed(1), progress=False)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), start, strict=True))


def test_a_validation_that_is_not_finite_names_the_step(tmp_path):
    calls = [0]

    def check(model):
        calls[0] += 1
        return validation(model) if calls[0] < 3 else float("inf")

    with pytest.raises(NonFiniteLossError, match=r"validation loss is inf at step 21.*weights of step 21"):
        run(tmp_path, check=check)
    assert latest_checkpoint(tmp_path).step == 21


def test_a_full_disk_does_not_hide_the_reason(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "write_checkpoint", full)
    _, error = train_broken(3, tmp_path)
    assert "'bad' is nan at step 3" in str(error)
    assert "could not be written" in str(error)
    assert error.weights


def test_weights_are_read_by_kind(tmp_path, whole):
    run(tmp_path)
    model = network(3)
    model.load_state_dict(load_weights(tmp_path))
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), whole[0])
    other = load_weights(tmp_path, "model")
    assert not all(torch.equal(other[name], value) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="kind must be"):
        load_weights(tmp_path / "step-00000040", "worst")
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_weights(tmp_path / "nothing")
