"""A run of forty steps on eight units, with everything a run can have; shared by the tests of checkpoints."""

from __future__ import annotations

import torch

from thalweg.core.fields.mlp import MLP, build
from thalweg.training import Checkpoints, TrainingConfig, train

CONFIG = TrainingConfig(
    max_steps=40, batch_size=16, learning_rate=0.02, warmup_steps=5, ema_decay=0.9, validate_every=7, patience=99
)
IDENTITY = {"data": "abc"}


class Killed(BaseException):
    """Ends a run at once, as a signal would."""


def network(seed=0):
    return build(lambda: MLP(2, width=8, depth=1), torch.Generator().manual_seed(seed))


def target(x, t):
    return torch.stack([x[:, 1].sin(), x[:, 0] * t], 1)


def objective(model, n, generator):
    x, t = torch.randn(n, 2, generator=generator), torch.rand(n, generator=generator)
    fit = (model(t, x) - target(x, t)).square().mean()
    return {"fit": fit, "small": 0.01 * model(t, x).square().mean()}


def validation(model):
    g = torch.Generator().manual_seed(9)
    x, t = torch.randn(64, 2, generator=g), torch.rand(64, generator=g)
    with torch.no_grad():
        return float((model(t, x) - target(x, t)).square().mean())


def farther(model):
    """A validation that the first one wins: the way from zero, which training makes longer."""
    return float(sum(p.detach().square().sum() for p in model.parameters()))


class Stopper:
    """The objective, killed when the ``at``-th step is drawn."""

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self, model, n, generator):
        self.calls += 1
        if self.calls == self.at:
            raise Killed
        return objective(model, n, generator)


def run(
    directory=None, *, resume=False, every=5, at=None, config=CONFIG, check=validation, identity=IDENTITY, hook=None
):
    """Weights, history, best step and final state of the generator."""
    model, generator = network(), torch.Generator().manual_seed(1)
    points = None if directory is None else Checkpoints(directory, identity, resume=resume, every=every)
    if hook is not None:
        hook(points, model, generator)
    result = train(
        model, objective if at is None else Stopper(at), config, generator,
        validation=check, checkpoints=points, progress=False,
    )  # fmt: skip
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, result.history, (result.best_step, result.stopped_early), generator.get_state()


def equal(a, b):
    return torch.equal(a[0], b[0]) and a[1] == b[1] and a[2] == b[2] and torch.equal(a[3], b[3])
