"""Checkpoints: the same bits after any interruption, every part needed, another run refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_run import CONFIG, IDENTITY, Killed, Stopper, equal, farther, network, objective, run, validation
from torch import nn

from thalweg.core.fields.mlp import MLP, build
from thalweg.errors import CheckpointError, InputError
from thalweg.training import Checkpoints, saving, train
from thalweg.training.state import RunState

# --- to the bit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 5, 6, 7, 8, 14, 15, 36, 40])
def test_a_run_killed_at_any_step_ends_with_the_same_bits(tmp_path, whole, at):
    with pytest.raises(Killed):
        run(tmp_path, at=at)
    assert equal(run(tmp_path, resume=True), whole)


def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path, whole):
    for at in (3, 9, 2, 7, 1, 11):
        with pytest.raises(Killed):
            run(tmp_path, resume=True, every=1, at=at)
    assert equal(run(tmp_path, resume=True, every=3), whole)


@pytest.mark.parametrize(
    ("check", "at", "config", "early"),
    [
        (None, 17, CONFIG, False),
        (farther, 17, replace(CONFIG, patience=3), True),  # at step 28
        (validation, 8, replace(CONFIG, ema_decay=0.0, max_steps=12, validate_every=1), False),
    ],
)
def test_other_ways_to_end_survive_too(tmp_path, check, at, config, early):
    straight = run(check=check, config=config)
    with pytest.raises(Killed):
        run(tmp_path, check=check, config=config, at=at)
    assert equal(run(tmp_path, resume=True, check=check, config=config), straight)
    assert straight[2][1] == early


def test_saving_changes_nothing(tmp_path, whole):
    assert equal(run(tmp_path, every=1), whole)


def test_a_finished_run_returns_at_once_with_the_same_bits(tmp_path, whole):
    run(tmp_path)
    again = run(tmp_path, resume=True, at=1)  # the first draw would kill it
    assert torch.equal(again[0], whole[0])
    assert again[1:3] == whole[1:3]


def test_generators_besides_that_of_the_objective_go_on(tmp_path):
    def dropout_run(directory=None, resume=False, at=None):
        other = torch.Generator().manual_seed(5)
        stop = Stopper(at)

        def noisy(model, n, generator):
            terms = stop(model, n, generator)
            return terms | {"noise": (model(torch.rand(4, generator=other), torch.ones(4, 2))).mean()}

        model = network()
        points = None
        if directory:
            points = Checkpoints(directory, IDENTITY, resume=resume, every=5, generators={"other": other})
        train(model, noisy, CONFIG, torch.Generator().manual_seed(1), checkpoints=points, progress=False)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    with pytest.raises(Killed):
        dropout_run(tmp_path, at=18)
    assert torch.equal(dropout_run(tmp_path, resume=True), dropout_run())
    with pytest.raises(CheckpointError, match=r"generators\.safetensors is of another model: .* has other"):
        run(tmp_path, resume=True)


def without(part):
    """The hook that makes a run go on with one part as a new run would have it."""

    def hook(points, model, generator):
        start = points.start
        fresh = RunState(model, CONFIG, {"training": torch.Generator().manual_seed(1)})
        tensors, meta = dict(start.tensors), dict(start.meta)
        if part == "step":
            start = replace(start, step=0)
        elif part == "rounds":
            meta["best"] = meta["best"] | {"rounds": 0}
        elif part in fresh.record():
            meta[part] = fresh.record()[part]
        else:
            tensors[part] = fresh.tensors()[part]
            if part == "best":
                meta["best"] = fresh.record()["best"]
        points.start = replace(start, tensors=tensors, meta=meta)

    return hook


@pytest.mark.parametrize("part", ["model", "average", "optimizer", "generators", "step", "best"])
def test_every_part_of_a_checkpoint_is_needed_for_the_weights(tmp_path, part):
    check = farther if part == "best" else validation
    straight = run(check=check)
    with pytest.raises(Killed):
        run(tmp_path, check=check, at=13)
    difference = (run(tmp_path, resume=True, check=check, hook=without(part))[0] - straight[0]).abs().max()
    assert difference > 1e-5


@pytest.mark.parametrize(("part", "seen"), [("sums", 1), ("history", 1), ("rounds", 2)])
def test_and_for_the_record(tmp_path, part, seen):
    config = replace(CONFIG, patience=3)
    with pytest.raises(Killed):
        run(tmp_path, check=farther, config=config, at=18)
    changed = run(tmp_path, resume=True, check=farther, config=config, hook=without(part))
    assert (
        changed[seen] != run(check=farther, config=config)[seen] or changed[1] != run(check=farther, config=config)[1]
    )


# --- another run ------------------------------------------------------------------------------------------------------


def test_what_differs_is_named(saved):
    with pytest.raises(InputError, match=r"data is 'abc' there and 'abd' here.*checkpoint_dir"):
        run(saved, resume=True, identity={"data": "abd"})
    with pytest.raises(InputError, match=r"config\.learning_rate is 0\.02 there and 0\.1 here"):
        run(saved, resume=True, config=replace(CONFIG, learning_rate=0.1))
    with pytest.raises(InputError, match="holds checkpoints, the newest step-00000010; give resume=True"):
        run(saved)


def test_resuming_nothing_starts_anew_and_says_so(tmp_path, whole, caplog):
    assert equal(run(tmp_path / "new" / "folder", resume=True), whole)
    assert "no checkpoint in" in caplog.text
    assert "starts anew" in caplog.text


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path / "file" / "folder")
    for options in ({"every": 0}, {"keep": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            Checkpoints(tmp_path, {}, **options)


def test_versions_that_differ_are_logged(saved, whole, caplog, monkeypatch):
    monkeypatch.setattr(saving, "__version__", "0.0.9")
    assert equal(run(saved, resume=True), whole)
    assert "was written with thalweg" in caplog.text
    assert "this is 0.0.9" in caplog.text


def test_another_network_is_refused(saved):
    model = build(lambda: MLP(2, width=9, depth=1), torch.Generator().manual_seed(0))
    points = Checkpoints(saved, IDENTITY, resume=True)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is of another model: .*\(8,\) .* there and \(9,\) .* here"
    ):
        train(model, objective, CONFIG, torch.Generator(), checkpoints=points, progress=False)
    points = Checkpoints(saved, IDENTITY, resume=True)
    with pytest.raises(CheckpointError, match=r"only one of the two has"):
        train(nn.Linear(2, 2), objective, CONFIG, torch.Generator(), checkpoints=points, progress=False)
