"""No function that draws touches a global generator: every verb is run, and every draw in the source is read."""

from __future__ import annotations

import ast
import inspect
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData

import thalweg as tw

SRC = Path(tw.__file__).parent
QUICK = tw.tl.FitConfig(max_steps=3, batch_size=16, width=8, depth=1)


def states() -> tuple[object, ...]:
    """State of the global generators of Python, numpy and torch; any draw moves one of them."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), (kind, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


def _fitted(method: str = "sf2m") -> AnnData:
    adata = tw.datasets.simulated(90, n_genes=120, n_pcs=5, n_futures=2, rng=0)
    tw.tl.fit(adata, "time", method=method, rng=0, config=QUICK)
    return adata


def _train() -> object:
    generator = torch.Generator().manual_seed(0)
    model = tw.core.fields.build(lambda: tw.core.fields.MLP(2), generator)

    def objective(net: torch.nn.Module, n: int, g: torch.Generator) -> dict[str, torch.Tensor]:
        x = torch.randn(n, 2, generator=g)
        return {"loss": (net(torch.zeros(n), x, None) - x).square().mean()}

    return tw.training.train(model, objective, tw.training.TrainingConfig(max_steps=3), generator, progress=False)


def _fate_trends(adata: AnnData) -> object:
    tw.tl.fate(adata, "branch", rng=0)
    return tw.tl.gene_trends(adata, list(adata.var_names[:2]), "time", fate="branch", rng=0)


def _compared(adata: AnnData) -> object:
    adata = tw.datasets.experiment(n_cells=12, n_days=4, onset=1, counts=False, rng=0)
    tw.tl.fit(adata, "time", use_rep="X_latent", condition_key="condition", baseline="baseline", config=QUICK, rng=0)
    return tw.tl.compare(adata, "condition", "cell_type", replicate_key="replicate", rng=0)


def _with_mice(adata: AnnData) -> AnnData:
    adata.obs["mouse"] = np.where(np.arange(adata.n_obs) % 2, "m1", "m2")
    return adata


DRAWS: dict[str, Callable[[AnnData], object]] = {
    "tl.fit": lambda a: [tw.tl.fit(a, "time", method=m, rng=0, config=QUICK) for m in ("otcfm", "uam", "eam", "fm")],
    "tl.fate": lambda a: tw.tl.fate(a, "branch", stochastic=True, n_samples=2, rng=0),
    "tl.terminal_states": lambda a: tw.tl.terminal_states(a, n_draws=2, rng=0),
    "tl.gene_trends": _fate_trends,
    "tl.interpolate": lambda a: tw.tl.interpolate(a, 1.5, stochastic=True, rng=0),
    "tl.leave_one_out": lambda a: tw.tl.leave_one_out(a, "time", methods="otcfm", times=[1], n_seeds=1, config=QUICK),
    "tl.leave_one_replicate_out": lambda a: tw.tl.leave_one_replicate_out(
        _with_mice(a), "time", "mouse", methods="otcfm", config=QUICK
    ),
    "tl.assess": lambda a: tw.tl.assess(a, "time", n_cells=8, config=QUICK),
    "tl.choose": lambda a: tw.tl.choose(a, "time", methods=("icfm", "otcfm"), n_seeds=1, config=QUICK),
    "tl.compare": _compared,
    "tl.next_time": lambda a: tw.tl.next_time(a, "time", methods=("icfm",), n_between=1, config=QUICK),
    "tl.log_likelihood": lambda a: tw.tl.log_likelihood(a, trace="hutchinson", rng=0),
    "tl.trajectories": lambda a: tw.tl.trajectories(a, 5, stochastic=True, rng=0),
    "tl.transition": lambda a: tw.tl.transition(a, stochastic=True, n_samples=2, rng=0),
    "datasets.experiment": lambda a: tw.datasets.experiment(n_cells=4, rng=0),
    "datasets.toggle_switch": lambda a: tw.datasets.toggle_switch(40, rng=0),
    "datasets.simulated": lambda a: tw.datasets.simulated(60, n_genes=120, n_pcs=5, n_futures=2, rng=0),
    "training.train": lambda a: _train(),
    # no rng, since nothing is drawn; scanpy's scores of gene sets would be
    "pp.growth": lambda a: (
        tw.pp.growth(a, proliferation=list(a.var_names[:3]), apoptosis=list(a.var_names[3:6]), time_key="time"),
        tw.pp.growth(a, method="unbalanced", time_key="time"),
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_function_that_draws_leaves_the_global_generators_alone(name: str) -> None:
    adata = _fitted()
    before = states()
    DRAWS[name](adata)
    assert states() == before


def test_every_public_function_that_draws_is_among_them() -> None:
    found = set()
    for room in ("tl", "pp", "pl", "get", "metrics", "datasets", "training"):
        module = getattr(tw, room)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) and {"rng", "generator"} & inspect.signature(value).parameters.keys():
                found.add(f"{room}.{name}")
    assert found <= DRAWS.keys()


TORCH = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "poisson"}
IN_PLACE = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "geometric_", "multinomial"}
NEVER = {"rand_like", "randn_like", "randint_like", "seed", "manual_seed_all"}  # these take no generator
NUMPY = {"default_rng", "Generator", "PCG64"}


def global_draws(source: str) -> list[str]:
    """Calls and imports that draw from a global generator."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name == "random"]
        if not isinstance(node, ast.Call):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random" and node.attr not in NUMPY:
                found.append(ast.unparse(node))
            continue
        name = ast.unparse(node.func)
        last, given = name.rpartition(".")[2], {keyword.arg for keyword in node.keywords}
        drawn = (name.startswith("torch.") and last in TORCH) or last in IN_PLACE
        if (name.startswith("torch.") and last in NEVER) or (drawn and "generator" not in given):
            found.append(name)
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_every_draw_in_the_source_names_its_generator(path: Path) -> None:
    assert global_draws(path.read_text(encoding="utf-8")) == []


def test_the_reading_of_the_source_finds_global_draws() -> None:
    for line in ("torch.randn(3)", "x.normal_()", "np.random.rand()", "import random", "torch.rand_like(x)"):
        assert global_draws(line), line
    assert global_draws("torch.randn(3, generator=g)\nnp.random.default_rng(0)") == []
