"""A fit whose flow is known in closed form, for the tools that run a fit; a fit that is killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch import Tensor, nn

import thalweg as tw
from thalweg.data.recipe import Recipe
from thalweg.flows import store
from thalweg.flows.flow import Flow
from thalweg.flows.methods import find_method
from thalweg.flows.time_axis import TimeAxis
from thalweg.training import loop

Field = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class KnownNet(nn.Module):
    """Fields of physical time ``t``, position and condition, as the networks of a fit on the model's axis."""

    def __init__(self, velocity: Field, growth: Field | None, score: Field | None, axis: TimeAxis) -> None:
        super().__init__()
        self.where = nn.Parameter(torch.zeros(()))
        self.first, self.unit, self.k = float(axis.times[0]), float(np.ptp(axis.times)) / axis.n_intervals, axis.n_intervals  # fmt: skip  # noqa: E501
        self.fields = {"velocity": velocity, "growth": growth, "score": score}
        self.grows = growth is not None
        self.score = None if score is None else lambda s, z, c: self.at("score", s, z, c)

    def at(self, name: str, s: Tensor, z: Tensor, c: Tensor | None) -> Tensor:
        t = self.first + s * self.k * self.unit
        return self.fields[name](t, z, c) * self.unit

    def velocity(self, s: Tensor, z: Tensor, c: Tensor | None) -> Tensor:
        return self.at("velocity", s, z, c)

    def growth_rate(self, s: Tensor, z: Tensor, c: Tensor | None) -> Tensor:
        return self.at("growth", s, z, c) if self.grows else torch.zeros_like(s)


@pytest.fixture
def known(monkeypatch):
    """``known(adata, velocity, growth=, score=, sigma=, condition_key=, weight_key=, growth_key=,
    method=)``: put the fit there.

    ``sigma`` is the diffusion per square root of a unit of time.
    """

    def put(
        adata: AnnData,
        velocity: Field,
        *,
        growth: Field | None = None,
        score: Field | None = None,
        sigma: float = 0.0,
        condition_key: str = "",
        weight_key: str = "",
        growth_key: str = "",
        method: str = "otcfm",
    ) -> AnnData:
        times = np.unique(adata.obs["time"].to_numpy(dtype=float))
        axis = TimeAxis(times, times, times)
        net = KnownNet(velocity, growth, score, axis)
        d = adata.obsm["X_pca"].shape[1]
        flow = Flow(net, axis, np.zeros(d), 1.0, sigma * net.unit**0.5)
        conditions = tuple(sorted(set(adata.obs[condition_key].astype(str)))) if condition_key else ()
        recipe = Recipe(
            "time", "X_pca", d, None, condition_key or None, weight_key or None, growth_key or None, conditions
        )
        stored = store.Stored(flow, find_method(method), recipe, tw.tl.FitConfig())
        adata.uns["thalweg"] = {"format": store.FORMAT, "weights": {"0": np.zeros(1, dtype=np.uint8)}}
        monkeypatch.setattr(store, "_unpack", lambda entry, device: stored)
        return adata

    return put


@pytest.fixture
def cells():
    """``cells({0.0: points, 1.0: points}, column=values)``: an AnnData of points by time."""

    def make(points: dict[float, Sequence[Sequence[float]]], **columns: Sequence[object]) -> AnnData:
        x = np.concatenate([np.asarray(p, dtype=float).reshape(len(p), -1) for p in points.values()])
        time = np.repeat(list(points), [len(p) for p in points.values()])
        obs = pd.DataFrame({"time": time, **columns}, index=[f"c{i}" for i in range(len(x))])
        return AnnData(obs=obs, obsm={"X_pca": x})

    return make


class Killed(BaseException):
    """Ends a fit at once, as a signal would."""


@pytest.fixture
def killed(monkeypatch):
    """``killed(step)``: whatever trains next is killed while it takes this step."""
    original = loop._step

    def arm(step):
        def cut(state, objective, config, now):
            if now == step:
                monkeypatch.setattr(loop, "_step", original)
                objective(state.model, config.batch_size, state.generator)  # draws are lost, too
                raise Killed
            return original(state, objective, config, now)

        monkeypatch.setattr(loop, "_step", cut)

    arm.error = Killed
    return arm
