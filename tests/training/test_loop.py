"""The training loop: finds a known minimum, keeps the best average, stops when it should."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg.errors import InputError, NonFiniteLossError
from thalweg.training import TrainingConfig, train

TARGET = torch.tensor([1.0, -2.0, 3.0])


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))


def noisy(model, n, generator):
    draws = TARGET + torch.randn(n, 3, generator=generator)
    return {"fit": (model.w - draws).square().mean()}


def run(seed=0, objective=noisy, validation=None, **kwargs):
    model = Point()
    settings = {"max_steps": 800, "batch_size": 64, "learning_rate": 0.05, "weight_decay": 0.0} | kwargs
    config = TrainingConfig(**settings)
    result = train(model, objective, config, torch.Generator().manual_seed(seed), validation=validation, progress=False)
    return model, result


def test_reaches_the_minimum():
    model, result = run()
    assert (model.w - TARGET).abs().max() < 0.02
    assert result.best_step == 800
    assert result.history["step"] == [float(s) for s in range(50, 801, 50)]
    assert result.history["loss"][-1] == pytest.approx(1.0, abs=0.1)  # the variance of the draws


def test_history_averages_the_terms_since_the_row_before():
    values = iter(range(1, 101))

    def counting(model, n, generator):
        return {"a": model.w.sum() * 0 + next(values), "b": model.w.sum() * 0 + 1.0}

    _, result = run(objective=counting, max_steps=25, validate_every=10)
    assert result.history["a"] == [5.5, 15.5, 23.0]
    assert result.history["loss"] == [6.5, 16.5, 24.0]


def test_same_seed_same_bits_and_global_state_untouched():
    state = torch.get_rng_state()
    a, b, c = run(0)[0], run(0)[0], run(1)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.w, b.w)
    assert not torch.equal(a.w, c.w)


def test_early_stopping_restores_the_best_average():
    seen = []

    def validation(model):
        seen.append(model.w.detach().clone())
        return abs(len(seen) - 4) + 1.0  # best at the fourth validation

    model, result = run(validation=validation, validate_every=10, patience=3)
    assert result.stopped_early
    assert result.best_step == 40
    assert len(seen) == 7
    assert torch.equal(model.w, seen[3])


def test_average_is_less_noisy_than_the_weights():
    errors = {}
    for decay in (0.0, 0.99):
        runs = [run(seed, ema_decay=decay, batch_size=1, max_steps=1000)[0].w for seed in range(5)]
        errors[decay] = torch.stack([(w - TARGET).square().mean() for w in runs]).mean()
    assert errors[0.99] < errors[0.0]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_stops_at_the_first_non_finite_step(where):
    count = 0

    def broken(model, n, generator):
        nonlocal count
        count += 1
        good = noisy(model, n, generator)["fit"]
        if count < 7:
            return {"fit": good, "extra": good * 0}
        bad = good * float("nan") if where == "loss" else (model.w * 0).pow(0.5).sum()  # gradient of the root at 0
        return {"fit": good, "extra": bad}

    model = Point()
    with pytest.raises(NonFiniteLossError, match="step 7") as caught:
        train(model, broken, TrainingConfig(max_steps=50), torch.Generator().manual_seed(0), progress=False)
    assert "extra" in str(caught.value)
    assert torch.isfinite(model.w).all()
    assert model.w.abs().max() > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_steps", 0), ("learning_rate", -1.0), ("ema_decay", 1.0), ("validation_fraction", 1.0), ("warmup_steps", -1)],
)
def test_configuration_is_checked(field, value):
    with pytest.raises(InputError, match=field):
        TrainingConfig(**{field: value})
