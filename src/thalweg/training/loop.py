"""One loop for every model: AdamW, averaged weights, validation, early stopping, a stop when a loss is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from thalweg._settings import logger
from thalweg.errors import NonFiniteLossError
from thalweg.training.config import TrainingConfig
from thalweg.training.saving import Checkpoints
from thalweg.training.state import RunState

M = TypeVar("M", bound=nn.Module)

Objective = Callable[[M, int, torch.Generator], Mapping[str, Tensor]]
"""``objective(model, batch_size, generator)`` -> scalar terms by name; their sum is minimised."""

Validation = Callable[[M], float]
"""``validation(model)`` -> loss on the samples held back; the same draws at every call."""

Monitor = Callable[[M], Mapping[str, float]]
"""``monitor(model)`` -> figures to log beside the losses."""


@dataclass
class TrainingResult:
    """What a run leaves behind besides the weights.

    Attributes
    ----------
    history
        Columns ``step``, one for each term, ``loss``, ``learning_rate``, with a validation ``validation_loss``, and
        those of the monitor: a row every ``validate_every`` steps, the losses averaged over the steps since the row
        before.
    best_step
        Step whose averaged weights were kept.
    stopped_early
        Whether patience ran out before ``max_steps``.
    earlier_seconds
        Wall time of the parts of the run before it was resumed; 0 for a run in one piece.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_step: int = 0
    stopped_early: bool = False
    earlier_seconds: float = 0.0


def train(
    model: M,
    objective: Objective[M],
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    validation: Validation[M] | None = None,
    monitor: Monitor[M] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: bool = True,
    description: str = "training",
) -> TrainingResult:
    """Train ``model`` in place; it ends with the best averaged weights.

    Parameters
    ----------
    model
        Module to train, on the device it shall be trained on.
    objective
        Draws a batch with the generator and returns the scalar terms of the loss by name. It has no state of its own.
    config
        Steps, rates, averaging and stopping.
    generator
        Source of every draw.
    validation
        Loss on held-back samples; without it the averaged weights of the last step are kept.
    monitor
        Figures of the averaged model to log with every validation.
    checkpoints
        Where to save the run as it goes, and what to go on from; a resumed run ends with the bits of one that was never
        stopped. A checkpoint that cannot be written (a full disk) is logged as an error, and training goes on.
    progress, description
        Progress bar and its label.

    Raises
    ------
    NonFiniteLossError
        At the first step whose loss or gradient is NaN or infinite; names the step and the term. The model keeps the
        last finite weights; the error carries a copy, and with ``checkpoints`` they are written there.
    InputError
        If the checkpoint to go on from is of another configuration; names what differs.
    CheckpointError
        If the checkpoint to go on from is not of this model.
    """
    with nullcontext() if checkpoints is None else checkpoints:
        return _train(model, objective, config, generator, validation, monitor, checkpoints, progress, description)


def _train(
    model: M,
    objective: Objective[M],
    config: TrainingConfig,
    generator: torch.Generator,
    validation: Validation[M] | None,
    monitor: Monitor[M] | None,
    checkpoints: Checkpoints | None,
    progress: bool,
    description: str,
) -> TrainingResult:
    generators = {"training": generator} | ({} if checkpoints is None else checkpoints.generators)
    state = RunState(model, config, generators)
    if checkpoints is not None:
        checkpoints.expect_config(config)
        if checkpoints.start is not None:
            state.restore(checkpoints.start)
            checkpoints.start = None  # its tensors are no longer needed
    earlier, start = state.seconds, time.perf_counter()
    bar = tqdm(total=config.max_steps, initial=state.step, desc=description, disable=not progress, leave=False)
    with bar, _threads(config.n_threads):
        while not state.finished:
            try:
                loss = _advance(state, objective, config, validation, monitor)
            except NonFiniteLossError as error:
                raise _with_weights(error, state, checkpoints) from None
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            bar.update()
            if checkpoints is not None and (state.finished or state.step % checkpoints.every == 0):
                state.seconds = earlier + time.perf_counter() - start
                _save(state, checkpoints)
    model.load_state_dict(state.best.state)
    return TrainingResult(state.history, state.best.step, state.stopped_early, earlier)


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _advance(
    state: RunState[M],
    objective: Objective[M],
    config: TrainingConfig,
    validation: Validation[M] | None,
    monitor: Monitor[M] | None,
) -> float | None:
    """One step, and at its turn the row of the history, whose loss is returned."""
    step = state.step + 1
    terms = _step(state, objective, config, step)
    state.update_average()
    state.step = step
    for name, value in terms.items():
        state.sums[name] = state.sums.get(name, 0.0) + value
    if step % config.validate_every and step != config.max_steps:
        return None
    n = (step - 1) % config.validate_every + 1
    row = {"step": float(step), **{k: v / n for k, v in state.sums.items()}}
    row["learning_rate"] = config.learning_rate * _rate(step, config)
    state.sums = {}
    if validation is not None:
        row["validation_loss"] = _evaluate(state.average, validation, step)
    if monitor is not None:
        row |= monitor(state.average)
    for name, value in row.items():
        state.history.setdefault(name, []).append(value)
    state.best.update(row.get("validation_loss", -step), step, state.average)
    exhausted = state.best.rounds >= config.patience
    state.stopped_early = exhausted and step < config.max_steps
    state.finished = exhausted or step == config.max_steps
    return row["loss"]


def _step(state: RunState[M], objective: Objective[M], config: TrainingConfig, step: int) -> dict[str, float]:
    """Draw, differentiate, and change the weights; they are as before if anything is not finite."""
    optimizer = state.optimizer
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * _rate(step - 1, config)
    terms = objective(state.model, config.batch_size, state.generator)
    loss = torch.stack(list(terms.values())).sum()
    values = {name: float(v.detach()) for name, v in terms.items()} | {"loss": float(loss.detach())}
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLossError(f"loss term {name!r} is {value} at step {step}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip))
    if not math.isfinite(norm):
        raise NonFiniteLossError(f"gradient norm of {' + '.join(terms)} is {norm} at step {step}")
    optimizer.step()
    return values


def _evaluate(model: M, validation: Validation[M], step: int) -> float:
    model.eval()
    value = validation(model)
    model.train()
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the validation loss is {value} at step {step}")
    return value


def _rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of ``step`` (from 0) over its peak."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    rest = max(1, config.max_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / rest)))


def _save(state: RunState[M], checkpoints: Checkpoints) -> None:
    """Write a checkpoint; a run is worth more than its copy, so that a full disk does not end it."""
    try:
        checkpoints.save(state.step, state.tensors(), state.record())
    except OSError as error:
        logger.error(
            "the checkpoint of step %d could not be written (%s); training goes on, those before in %s are whole",
            *(state.step, error, checkpoints.directory),
        )


def _with_weights(error: NonFiniteLossError, state: RunState[M], checkpoints: Checkpoints | None) -> NonFiniteLossError:
    """The error with the last finite weights, which are also written to a checkpoint."""
    step = state.keep_finite_weights()
    failure = (
        f"{error}: training stopped, the weights of step {step}, the last finite ones, are kept. "
        "Lower the learning_rate or check the input."
    )
    where = ""
    if checkpoints is not None:
        try:
            where = (
                f" They are in {checkpoints.save(state.step, state.tensors(), {**state.record(), 'failure': failure})}."
            )
        except OSError as problem:
            where = f" They could not be written to {checkpoints.directory} ({problem})."
    out = NonFiniteLossError(failure + where)
    out.weights = {name: v.detach().clone() for name, v in state.model.state_dict().items()}
    return out
