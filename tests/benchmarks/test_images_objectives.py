"""Objectives: what is added with weight zero is nothing, pairs are the coupling's, fields are turned back right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.images.data import from_grey
from benchmarks.images.embedding import build
from benchmarks.images.flows import Flow, Sampler, bits, sample, straightness
from benchmarks.images.objectives import OBJECTIVES, Objective, draw, mean_negative, pairs, terms, velocity_field
from benchmarks.images.transformer import Transformer, TransformerConfig
from torch import Tensor

from thalweg.core import losses
from thalweg.core.dispersive import contrastive_pair
from thalweg.core.fields.features import tap
from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.core.paths import GaussianOT, VPDiffusion, expand
from thalweg.errors import InputError

SHAPE = (1, 4, 4)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> Transformer:
    config = TransformerConfig(width=16, depth=2, heads=2)
    made = build(lambda: Transformer(SHAPE, 3, config), gen())
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=gen(1)))
    return made


def images(n: int = 12) -> tuple[Tensor, Tensor]:
    return torch.rand(n, *SHAPE, generator=gen(2)) * 2 - 1, torch.arange(n) % 3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_are_the_cores_loss_on_the_drawn_batch(name: str) -> None:
    x, y = images()
    objective, model = Objective(name), network()
    found = terms(model, objective, x, y, gen(3))
    batch = draw(objective, x, y, gen(3))
    if name == "sm-vp":
        expected = {"score": (model(batch.t, batch.x_t, batch.condition) - batch.eps).square().mean()}
        torch.testing.assert_close(found, expected)
    else:
        assert found.keys() == {"velocity"}
        assert torch.equal(found["velocity"], losses.velocity(model, batch).mean())


@pytest.mark.parametrize("name", ["fm-ot", "fm-vp", "icfm", "otcfm", "sbcfm"])
def test_weight_zero_is_the_plain_loss_bit_for_bit(name: str) -> None:
    x, y = images()
    model, plain = network(), Objective(name)
    for option in (Contrastive(0.0), Contrastive(0.0, "other_condition")):
        added = terms(model, replace(plain, contrastive=option), x, y, gen(3))
        assert {k: v.item() for k, v in added.items()} == {
            k: v.item() for k, v in terms(model, plain, x, y, gen(3)).items()
        }


def test_dispersive_and_pair_leave_the_velocity_term_alone() -> None:
    x, y = images()
    model, plain = network(), Objective("fm-ot")
    option = Dispersive(weight=0.3, block="blocks.1")
    base = terms(model, plain, x, y, gen(3))["velocity"]
    dispersed = terms(model, replace(plain, dispersive=option), x, y, gen(3))
    assert torch.equal(dispersed["velocity"], base)
    for noise in ("independent", "restricted"):
        paired = terms(model, replace(plain, dispersive=option, pair_noise=noise), x, y, gen(3))
        torch.testing.assert_close(paired["velocity"], base, atol=1e-6, rtol=1e-6)  # other sizes of product
        assert paired.keys() == {"velocity", "pair"}


@pytest.mark.parametrize("kind", ["infonce_l2", "infonce_cosine", "hinge", "covariance"])
def test_pair_term_is_the_contrastive_loss_of_two_passes(kind: str) -> None:
    from thalweg.core.contrastive import paired_views

    x, y = images()
    model = network()
    option = Dispersive(weight=0.3, kind=kind, tau=0.7, block="blocks.0")  # type: ignore[arg-type]
    found = terms(model, Objective("fm-ot", dispersive=option, pair_noise="restricted"), x, y, gen(3))["pair"]
    generator, features = gen(3), []
    path = GaussianOT()
    for view in paired_views(path, x, x, path.draw_t(len(x), generator), generator, noise="restricted"):
        with tap(model, "blocks.0") as tapped:
            model(view.t, view.x_t, y)
        features.append(tapped.value)
    expected = 0.3 * contrastive_pair(features[0], features[1], kind, tau=0.7)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_optimal_pairs_use_each_image_once_within_its_class() -> None:
    x1, y = images(30)
    x0, x1_paired, y_paired = pairs(Objective("otcfm"), x1, y, gen(5))
    assert y_paired is not None
    noise = torch.randn(x1.shape, generator=gen(5))
    key = {row.numpy().tobytes(): i for i, row in enumerate(x1)}
    cols = torch.tensor([key[row.numpy().tobytes()] for row in x1_paired])
    assert sorted(cols.tolist()) == list(range(30))
    assert torch.equal(y[cols], y_paired)
    key = {row.numpy().tobytes(): i for i, row in enumerate(noise)}
    rows = torch.tensor([key[row.numpy().tobytes()] for row in x0])
    assert sorted(rows.tolist()) == list(range(30))
    # No exchange of two images of a class shortens the way.
    cost = torch.cdist(x0.flatten(1), x1_paired.flatten(1)).square()
    for i in range(30):
        for j in range(30):
            if y_paired[i] == y_paired[j]:
                assert cost[i, i] + cost[j, j] <= cost[i, j] + cost[j, i] + 1e-4


def test_translation_starts_from_the_images_given() -> None:
    x, _ = images()
    source = -x.flip(0)
    x0, x1, _ = pairs(Objective("otcfm"), x, None, gen(), source)
    assert {r.numpy().tobytes() for r in x0} == {r.numpy().tobytes() for r in source}
    assert {r.numpy().tobytes() for r in x1} == {r.numpy().tobytes() for r in x}


def test_score_of_one_image_becomes_its_velocity() -> None:
    # For a single image the marginal is the path itself, with eps = (x - alpha x1) / sigma and velocity u_t.
    path, x1 = VPDiffusion(), images(1)[0].double()

    def predict_noise(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        m = path.moments(x1.expand_as(x), x1.expand_as(x), t)
        return (x - m.mu) / expand(m.sigma, x)

    t = torch.linspace(0.1, 0.99, 7).double()
    batch = path(x1.expand(7, *SHAPE), x1.expand(7, *SHAPE), t, gen())
    found = velocity_field(predict_noise, Objective("sm-vp"))(t, batch.x_t, None)
    torch.testing.assert_close(found, batch.u_t, atol=1e-9, rtol=1e-9)


def test_flow_counts_passes_and_guides() -> None:
    y = torch.tensor([0, 1, 2])

    def field(t: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        return torch.ones_like(x) * (0.0 if condition is None else expand(condition.to(x) + 1, x))

    x0 = torch.zeros(3, *SHAPE)
    plain, guided = Flow(field, y), Flow(field, y, guidance=1.5)
    torch.testing.assert_close(sample(plain, x0, Sampler("euler", 4))[:, 0, 0, 0], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(sample(guided, x0, Sampler("euler", 4))[:, 0, 0, 0], torch.tensor([1.5, 3.0, 4.5]))
    assert (plain.passes, guided.passes) == (4, 8)
    with pytest.raises(InputError, match="needs a conditional model"):
        Flow(field, None, guidance=2.0)


def test_straightness_of_a_straight_and_of_a_circular_flow() -> None:
    x0 = torch.randn(64, 1, 1, 2, generator=gen())
    assert straightness(Flow(lambda t, x, c: torch.ones_like(x), None), x0) < 1e-10

    # A quarter turn: |v| = r pi/2, chord r sqrt(2), and mean |v - chord|^2 / |chord|^2 = pi^2/8 - 1.
    def turn(t: Tensor, x: Tensor, c: Tensor | None) -> Tensor:
        return (torch.pi / 2) * torch.stack([-x[..., 1], x[..., 0]], -1)

    assert straightness(Flow(turn, None), x0, steps=2000) == pytest.approx(torch.pi**2 / 8 - 1, rel=2e-3)


@pytest.mark.parametrize("levels", [17, 256])
def test_bits_of_a_scaled_gaussian(levels: int) -> None:
    # v = a x makes p_1 = N(0, e^{2a}): the expected code length of images x under it has a closed form.
    import numpy as np

    grey = np.random.default_rng(0).integers(0, levels, (40, 3, 3))
    shown, a = from_grey(grey, np.zeros(40), levels), -0.5
    flow = Flow(lambda t, x, c: a * x, None)
    var = float(np.exp(2 * a))
    square = shown.x.double().square().mean() + 1 / (3 * levels**2)  # with the dequantisation noise
    expected = 0.5 * np.log2(2 * np.pi * var) + float(square) / (2 * var * np.log(2)) + np.log2(levels / 2)
    assert bits(flow, shown, 1, "hutchinson", gen(), 1e-6) == pytest.approx(expected, abs=0.02)
    few, many = (bits(flow, shown, k, "exact", gen(), 1e-6) for k in (1, 4))
    assert many < few  # importance samples tighten the bound
    with pytest.raises(InputError, match="exact trace"):
        bits(flow, shown, 2, "hutchinson", gen())


def test_mean_negative_is_the_mean_velocity() -> None:
    x, y = images()
    objective = Objective("fm-ot", contrastive=Contrastive(0.05))
    mean = mean_negative(objective, x, y, gen(), draws=3000)
    # u = x1 - (1 - 1e-4) eps has the mean of the images.
    torch.testing.assert_close(mean(torch.zeros(1), x[:1])[0], x.mean(0), atol=0.03, rtol=0)
    with pytest.raises(InputError, match="contrastive option"):
        mean_negative(Objective("fm-ot"), x, y, gen())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "fm-tv"}, "objective must be one of fm-ot.*found 'fm-tv'"),
        ({"name": "sm-vp", "contrastive": Contrastive()}, "sm-vp learns a score"),
        ({"pair_noise": "restricted"}, "pair_noise needs a dispersive option"),
        ({"dispersive": Dispersive(), "pair_noise": "same"}, "one of independent, restricted"),
        ({"name": "otcfm", "dispersive": Dispersive(), "pair_noise": "restricted"}, "objective fm-ot or fm-vp"),
    ],
)
def test_unknown_and_impossible_objectives_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(**options)  # type: ignore[arg-type]


def test_unknown_block_is_named_with_those_that_exist() -> None:
    x, y = images()
    with pytest.raises(InputError, match=r"no submodule 'blocks.9'; available: .*blocks\.1"):
        terms(network(), Objective(dispersive=Dispersive(block="blocks.9")), x, y, gen())
