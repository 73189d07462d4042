"""Time of a training step with each loss, over that of plain CFM: one command, one run, one JSON.

Every loss is timed inside `thalweg.training.train` itself: one call trains one network, and its objective changes the
loss every few steps, so that a step is drawing the batch from a course of four times coupled by optimal transport,
forward, backward, clipping, AdamW, schedule and averaged weights, and all losses see the same network, machine and
minute. The order is plain, A, plain, B, ...; the ratio of a burst is its median step over the mean of the plain bursts
on both sides, and the median over the rounds is reported with its quartiles. `other_condition` is compared with plain
CFM of the same conditional network. One CPU thread, processor time of that thread: what others run on the machine is
not counted as time, though it slows memory and caches; run it on an idle machine.

    python benchmarks/scaling/step_time.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any, get_args

import torch
from torch import Tensor

from thalweg.core.couplings import Mixture, exact, uniform
from thalweg.core.dispersive import Kind
from thalweg.core.fields.mlp import MLP, build
from thalweg.core.objectives import Contrastive, Dispersive, velocity_terms
from thalweg.core.paths import Linear
from thalweg.data import IntervalSampler
from thalweg.training import TrainingConfig, train

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is found from the root
from benchmarks.common import results, tables

RESULT = results.path_of("step_time")
LIMIT = 1.15
BURST = 6  # steps of one loss in a row; the first, which finds the caches of another loss, does not count
TIMES, CELLS, CONDITIONS = 4, 500, 4  # cells of each time
Options = dict[str, Contrastive | Dispersive]


@dataclass(frozen=True)
class Network:
    """An MLP and its batch."""

    dim: int
    width: int
    depth: int
    batch_size: int


NETWORKS = [
    *(Network(dim, 64, 3, n) for dim in (5, 50) for n in (256, 1024)),
    *(Network(50, 256, 4, n) for n in (256, 1024)),
]


PLAIN: Options = {}
UNCONDITIONAL: dict[str, Options] = {
    "ΔFM any": {"contrastive": Contrastive()},
    **{f"dispersive {kind}": {"dispersive": Dispersive(kind=kind)} for kind in get_args(Kind)},
    **{
        f"dispersive {kind}, all pairs": {"dispersive": Dispersive(kind=kind, group=None)}
        for kind in get_args(Kind)
        if kind != "covariance"
    },
}
CONDITIONAL: dict[str, Options] = {"ΔFM other_condition": {"contrastive": Contrastive(negatives="other_condition")}}


def course(dim: int, conditions: int) -> IntervalSampler:
    """Four clouds in a row, neighbours coupled by exact optimal transport."""
    g = torch.Generator().manual_seed(0)
    tau = torch.arange(TIMES).repeat_interleave(CELLS).float()
    z = torch.randn(TIMES * CELLS, dim, generator=g) + tau[:, None]
    rows = torch.arange(TIMES * CELLS).split(CELLS)
    plans = [exact(z[a], z[b]) for a, b in pairwise(rows)]
    condition = torch.randint(conditions, (len(z),), generator=g) if conditions else None
    mixture = Mixture(plans, rows[:-1], rows[1:], uniform(TIMES - 1))
    return IntervalSampler(z, tau, condition, mixture, lambda length: Linear(0.1), TIMES - 1)


@dataclass
class Alternating:
    """Objective that changes its loss every `BURST` steps and notes when each step starts."""

    schedule: list[Options]
    sampler: IntervalSampler
    starts: list[float] = field(default_factory=list)

    def __call__(self, network: MLP, n: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        options = self.schedule[min(len(self.starts) // BURST, len(self.schedule) - 1)]
        self.starts.append(time.thread_time())
        drawn = self.sampler.batch(n, generator)
        return velocity_terms(network, drawn.batch, weight=drawn.weight, generator=generator, **options)  # type: ignore[arg-type]

    def seconds(self) -> list[float]:
        """Median time of a step of each burst."""
        steps = [b - a for a, b in pairwise(self.starts)]
        return [median(steps[i * BURST + 1 : (i + 1) * BURST]) for i in range(len(self.schedule))]


def measure(network: Network, losses: dict[str, Options], conditions: int, rounds: int) -> dict[str, dict[str, object]]:
    """Seconds and ratios of each loss, plain CFM first."""
    one_round = [options for loss in losses.values() for options in (PLAIN, loss)]
    schedule = one_round * (rounds + 1) + [PLAIN]  # the first round warms up
    objective = Alternating(schedule, course(network.dim, conditions))
    steps = BURST * len(schedule) + 1
    config = TrainingConfig(max_steps=steps, batch_size=network.batch_size, validate_every=steps, n_threads=1)
    g = torch.Generator().manual_seed(0)
    model = build(lambda: MLP(network.dim, width=network.width, depth=network.depth, n_conditions=conditions), g)
    train(model, objective, config, g, progress=False)
    bursts = objective.seconds()[len(one_round) :]
    plain = bursts[::2]
    out: dict[str, dict[str, object]] = {
        "plain CFM": {"seconds": median(plain), "ratio": 1.0, "ratio_quartiles": [1.0, 1.0]}
    }
    for i, name in enumerate(losses):
        own = bursts[2 * i + 1 :: len(one_round)]
        ratios = [s / mean(plain[i + r * len(losses) :][:2]) for r, s in enumerate(own)]
        low, middle, high = quantiles(ratios, n=4)
        out[name] = {"seconds": median(own), "ratio": middle, "ratio_quartiles": [low, high]}
    return out


def shown(table: dict[str, dict[str, Any]]) -> tables.Lines:
    """The table of one network for the terminal; what takes longer than allowed is marked."""
    lines = [["loss", "step (ms)", "ratio", "quartiles", ""]]
    for name, row in table.items():
        low, high = row["ratio_quartiles"]
        over = "" if row["ratio"] <= LIMIT else "over"
        lines.append([name, f"{1e3 * row['seconds']:.2f}", f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}", over])
    return lines


def blas() -> str:
    """The library that torch multiplies matrices with."""
    return next(part.split("=")[1] for part in torch.__config__.show().split(", ") if "BLAS_INFO" in part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds for the smallest network; larger ones do fewer")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows: list[results.Row] = []
    result = results.head(vars(arguments), [0])  # first: the load is not to be that of this run
    result["machine"] |= {"threads": 1, "blas": blas()}  # each network is trained with one thread
    result["protocol"] = "losses alternate within one training run; ratio to the plain CFM steps on both sides"
    for network in NETWORKS:
        label = f"MLP {network.width}x{network.depth}, {network.dim} dims, batch {network.batch_size}"
        print(f"\n{label}", flush=True)
        work = (network.width / 64) ** 2 * network.batch_size / 256
        rounds = max(6, round(arguments.rounds / work**0.5))
        table = measure(network, UNCONDITIONAL, 0, rounds)
        conditional = measure(network, CONDITIONAL, CONDITIONS, 4 * rounds)
        table["plain CFM, conditional"] = conditional["plain CFM"]
        table |= {name: conditional[name] for name in CONDITIONAL}
        print(tables.terminal(shown(table)), flush=True)
        rows += [{**vars(network), "loss": name, "rounds": rounds, **row} for name, row in table.items()]
    print(f"written: {results.save(arguments.output, result | {'limit': LIMIT, 'rows': rows})}")


if __name__ == "__main__":
    main()
