"""Fits that are stopped go on: the same bits, the same seed, and a refusal of anything else."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.cli import main
from thalweg.errors import CheckpointError, InputError, NonFiniteLossError
from thalweg.flows import methods
from thalweg.training import latest_checkpoint, load_weights, loop
from thalweg.training.checkpoint import folders

CONFIG = tw.tl.FitConfig(max_steps=24, batch_size=32, width=8, depth=1, validate_every=5, ema_decay=0.9)


def fit(adata, directory=None, *, rng=3, every=4, config=CONFIG, device="cpu", **options):
    options = {"method": "otcfm", "checkpoint_dir": directory, "checkpoint_every": every} | options
    return tw.tl.fit(adata, "time", rng=rng, config=config, device=device, copy=True, **options).uns["thalweg"]


def same(a, b):
    history = [f.drop(columns="seconds", errors="ignore") for f in (a["history"], b["history"])]
    return (
        np.array_equal(a["weights"]["0"], b["weights"]["0"])
        and history[0].equals(history[1])
        and a["best_step"] == b["best_step"]
    )


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_goes_on_to_the_bit(course, tmp_path, killed, method):
    whole = fit(course, method=method)
    killed(15)
    with pytest.raises(killed.error):
        fit(course, tmp_path, method=method)
    assert latest_checkpoint(tmp_path).step == 12
    assert same(fit(course, tmp_path, method=method, resume=True), whole)


@pytest.mark.parametrize(
    "options",
    [
        {"coupling": "minibatch", "block": 32},
        {"contrastive": tw.tl.Contrastive(weight=0.1, undo=True)},
        {"dispersive": tw.tl.Dispersive()},
        {"validation_fraction": 0.0},
    ],
    ids=lambda o: next(iter(o)),
)
def test_every_option_goes_on_to_the_bit(course, tmp_path, killed, options):
    config = tw.tl.FitConfig(**{**vars(CONFIG), **options})
    whole = fit(course, config=config)
    for step in (3, 18):
        killed(step)
        with pytest.raises(killed.error):
            fit(course, tmp_path, config=config, resume=True)
    assert same(fit(course, tmp_path, config=config, resume=True), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_goes_on_to_the_bit_and_is_not_the_cpu(course, tmp_path, killed):
    whole = fit(course, device="cuda")
    killed(15)
    with pytest.raises(killed.error):
        fit(course, tmp_path, device="cuda")
    with pytest.raises(InputError, match="device is 'cuda' there and 'cpu' here"):
        fit(course, tmp_path, resume=True)
    assert same(fit(course, tmp_path, device="cuda", resume=True), whole)


def test_a_fit_left_to_chance_goes_on_with_its_own_seed(course, tmp_path, killed):
    killed(10)
    with pytest.raises(killed.error):
        fit(course, tmp_path, rng=None)
    stored = latest_checkpoint(tmp_path).meta["notes"]["rng"]["state"]["state"]
    bits = np.random.PCG64()
    bits.state = latest_checkpoint(tmp_path).meta["notes"]["rng"]
    whole = fit(course, rng=np.random.Generator(bits))
    assert same(fit(course, tmp_path, rng=None, resume=True), whole)
    assert latest_checkpoint(tmp_path).meta["notes"]["rng"]["state"]["state"] == stored
    assert not same(fit(course, rng=None), whole)


def test_none_also_stands_for_the_seed_that_was_given(course, tmp_path, killed):
    whole = fit(course, rng=8)
    killed(10)
    with pytest.raises(killed.error):
        fit(course, tmp_path, rng=8)
    assert same(fit(course, tmp_path, rng=None, resume=True), whole)


def test_other_generators_of_numpy_serve_when_they_are_given_again(course, tmp_path, killed):
    def generator():
        return np.random.Generator(np.random.MT19937(4))

    whole = fit(course, rng=generator())
    killed(10)
    with pytest.raises(killed.error):
        fit(course, tmp_path, rng=generator())
    with pytest.raises(InputError, match="generator of another kind than numpy's default; give it as rng"):
        fit(course, tmp_path, rng=None, resume=True)
    assert same(fit(course, tmp_path, rng=generator(), resume=True), whole)


def test_a_finished_fit_trains_no_further(course, tmp_path, monkeypatch):
    whole = fit(course, tmp_path)
    monkeypatch.setattr(loop, "_step", None)
    again = fit(course, tmp_path, resume=True)
    assert same(again, whole)
    assert again["seconds"] > 0


def test_saving_changes_nothing_and_weights_are_found_in_the_folder(course, tmp_path):
    saved = fit(course, tmp_path)
    assert same(saved, fit(course))
    stored = load_weights(tmp_path)
    assert sum(v.numel() for v in stored.values()) * 4 < saved["weights"]["0"].size  # the rest is names


def test_seconds_add_up_over_the_parts(course, tmp_path, killed):
    killed(20)
    with pytest.raises(killed.error):
        fit(course, tmp_path)
    spent = latest_checkpoint(tmp_path).meta["seconds"]
    assert spent > 0
    folder = folders(tmp_path)[-1]
    assert fit(course, tmp_path, resume=True)["seconds"] > spent
    assert folder.name == "step-00000016"


@pytest.fixture
def stopped(course, tmp_path, killed):
    killed(10)
    with pytest.raises(killed.error):
        fit(course, tmp_path / "c")
    return tmp_path / "c"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rng": 4}, "started with another rng"),
        ({"method": "icfm"}, "method is 'otcfm' there and 'icfm' here"),
        ({"spacing": "index"}, "model times is .* there"),
        ({"n_dims": 2}, r"cells\.shape is \[360, 3\] there and \[360, 2\] here"),
        (
            {"config": tw.tl.FitConfig(**{**vars(CONFIG), "max_steps": 50})},
            r"config\.max_steps is 24 there and 50 here",
        ),
        (
            {"config": tw.tl.FitConfig(**{**vars(CONFIG), "dispersive": tw.tl.Dispersive()})},
            r"config\.dispersive is None",
        ),
        ({"resume": False}, "holds checkpoints, the newest step-00000008; give resume=True"),
    ],
)
def test_another_fit_is_refused_before_anything_is_computed(course, stopped, monkeypatch, change, match):
    monkeypatch.setattr("thalweg.flows.fitting.couple", None)
    with pytest.raises(InputError, match=match):
        fit(course, stopped, **{"resume": True} | change)


@pytest.mark.parametrize("what", ["coordinates", "times", "weights", "conditions"])
def test_other_cells_are_refused_and_named(course, tmp_path, killed, what):
    course.obs["w"], course.obs["c"] = 1.0, ["a", "b"] * 180
    keys = {"weight_key": "w", "condition_key": "c"}
    killed(10)
    with pytest.raises(killed.error):
        fit(course, tmp_path, **keys)
    if what == "coordinates":
        course.obsm["X_pca"][17, 1] = np.nextafter(course.obsm["X_pca"][17, 1], np.float32(9))
    elif what == "conditions":
        course.obs["c"] = ["b", "a"] * 180
    else:
        column = {"times": "time", "weights": "w"}[what]
        course.obs.loc["cell0", column] = 1.0 if what == "times" else 2.0
    with pytest.raises(InputError, match=rf"cells\.{what} is"):
        fit(course, tmp_path, resume=True, **keys)


def test_whether_plans_are_whole_is_part_of_the_fit(course, stopped):
    tw.settings.max_memory = 20_000  # enough for the cells, not for a plan of 120 x 120
    with pytest.raises(InputError, match=r"couplings is .*whole exact.* there and .*minibatch exact.* here"):
        fit(course, stopped, resume=True)


def test_damage_falls_back_with_a_warning_to_the_same_bits(course, stopped, caplog):
    path = stopped / "step-00000008" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    assert same(fit(course, stopped, resume=True), fit(course))
    assert "optimizer.safetensors is damaged" in caplog.text
    assert "Going on from the newest valid checkpoint" in caplog.text


def test_a_stored_seed_that_is_none_is_an_error(course, stopped):
    from thalweg.flows import resume

    with pytest.raises(CheckpointError, match="no state of a generator"):
        resume._restored({"bit_generator": "PCG64", "state": {"state": "x"}}, stopped)


def test_resuming_nothing_is_a_fresh_start_and_needs_a_folder(course, tmp_path, caplog):
    assert same(fit(course, tmp_path, resume=True), fit(course))
    assert "starts anew" in caplog.text
    with pytest.raises(InputError, match="resume=True needs checkpoint_dir"):
        fit(course, resume=True)


def test_a_loss_that_is_not_finite_leaves_its_weights_in_the_folder(course, tmp_path):
    config = tw.tl.FitConfig(**{**vars(CONFIG), "learning_rate": 1e37, "warmup_steps": 0})
    before = course.uns.copy()
    with pytest.raises(NonFiniteLossError, match=r"at step \d+.*last finite ones.*They are in .*step-") as caught:
        fit(course, tmp_path, config=config)
    kept = load_weights(tmp_path, "model")
    assert all(v.isfinite().all() for v in kept.values())
    assert all((kept[k] == v).all() for k, v in caught.value.weights.items())
    assert course.uns.keys() == before.keys()
    with pytest.raises(InputError, match="It would stop there again"):
        fit(course, tmp_path, config=config, resume=True)


def test_the_command_goes_on_too(course, tmp_path, killed, capsys):
    path, out = tmp_path / "course.h5ad", tmp_path / "fitted.h5ad"
    course.write_h5ad(path)
    args = ["fit", str(path), "--time-key", "time", "--config", "max_steps=260", "--device", "cpu"]
    args += ["--rng", "0", "--output", str(out)]
    args += ["--checkpoint-dir", str(tmp_path / "c")]
    killed(255)
    with pytest.raises(killed.error):
        main(args)
    assert main(args) == 1
    assert "give resume=True" in capsys.readouterr().err
    assert main([*args, "--resume"]) == 0
    fitted = ad.read_h5ad(out).uns["thalweg"]
    tw.tl.fit(course, "time", rng=0, device="cpu", config=tw.tl.FitConfig(max_steps=260))
    assert np.array_equal(fitted["weights"]["0"], course.uns["thalweg"]["weights"]["0"])


def test_a_fit_saves_itself_every_250_steps_and_at_its_end(course, tmp_path):
    config = tw.tl.FitConfig(max_steps=260, batch_size=8, width=4, depth=1, validation_fraction=0.0)
    tw.tl.fit(course, "time", method="otcfm", rng=0, config=config, device="cpu", checkpoint_dir=tmp_path)
    assert [folder.name for folder in folders(tmp_path)] == ["step-00000250", "step-00000260"]


@pytest.mark.parametrize("method", ["uotcfm", "sf2m", "otcfm"])
def test_plans_that_depend_on_the_threads_are_not_resumed_with_another_number(course, tmp_path, killed, method):
    """Entropic plans differ in their last bits; exact ones and the training do not."""
    killed(9)
    with pytest.raises(killed.error):
        fit(course, tmp_path, method=method)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        if method == "otcfm":
            assert same(fit(course, tmp_path, method=method, resume=True), fit(course, method=method))
        else:
            with pytest.raises(InputError, match=rf"torch.set_num_threads.* is {before} there and {before + 1} here"):
                fit(course, tmp_path, method=method, resume=True)
    finally:
        torch.set_num_threads(before)
    assert same(fit(course, tmp_path, method=method, resume=True), fit(course, method=method))
