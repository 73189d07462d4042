"""Networks: named blocks, the null class, starts, and weights that come from the generator alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from benchmarks.images.embedding import build
from benchmarks.images.transformer import Transformer, TransformerConfig
from benchmarks.images.unet import UNet, UNetConfig
from torch import nn

from thalweg.core.fields.features import block_at, tap
from thalweg.errors import InputError

SHAPE = (1, 8, 8)
CLASSES = 10


def transformer(n_classes: int = CLASSES, seed: int = 0) -> nn.Module:
    config = TransformerConfig(width=16, depth=3, heads=2)
    return build(lambda: Transformer(SHAPE, n_classes, config), torch.Generator().manual_seed(seed))


def unet(n_classes: int = CLASSES, seed: int = 0, **options: object) -> nn.Module:
    config = UNetConfig(width=8, mult=(1, 2), attention=(8,), **options)  # type: ignore[arg-type]
    return build(lambda: UNet(SHAPE, n_classes, config), torch.Generator().manual_seed(seed))


def awake(network: nn.Module) -> nn.Module:
    """Replace the zeros that a network starts from, which would hide its inputs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.modules():
            if hasattr(layer, "starts_at_zero"):
                for p in layer.parameters():
                    p.normal_(0, 0.2, generator=generator)
    return network


def points(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(n, generator=generator), torch.randn(n, *SHAPE, generator=generator)


both = pytest.mark.parametrize("make", [transformer, unet])


@both
def test_starts_as_the_zero_field(make: Callable[..., nn.Module]) -> None:
    t, x = points()
    assert torch.equal(make()(t, x, None), torch.zeros_like(x))


@both
def test_null_class_is_none_and_differs_from_the_classes(make: Callable[..., nn.Module]) -> None:
    network = awake(make())
    t, x = points()
    none = network(t, x, None)
    assert torch.equal(none, network(t, x, torch.full((5,), CLASSES)))
    assert not torch.allclose(none, network(t, x, torch.zeros(5, dtype=torch.int64)), atol=1e-3)
    with pytest.raises(InputError, match="labels"):
        network(t, x, torch.full((5,), CLASSES + 1))
    with pytest.raises(InputError, match="unconditional"):
        make(0)(t, x, torch.zeros(5, dtype=torch.int64))


@both
def test_rows_do_not_depend_on_each_other(make: Callable[..., nn.Module]) -> None:
    network = awake(make()).double()
    t, x = (v.double() for v in points())
    y = torch.arange(5)
    rows = torch.cat([network(t[i : i + 1], x[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network(t, x, y), rows, atol=1e-12, rtol=1e-12)


@both
def test_every_pixel_and_the_time_reach_every_output(make: Callable[..., nn.Module]) -> None:
    network = awake(make())
    t, x = points(1)
    x.requires_grad_()
    t.requires_grad_()
    by_time, by_pixel = torch.autograd.grad(network(t, x, None)[0, 0, 0, 0], (t, x))
    assert int((by_pixel == 0).sum()) == 0
    assert float(by_time) != 0


@both
def test_weights_come_from_the_generator_alone(make: Callable[..., nn.Module]) -> None:
    before = torch.get_rng_state()
    a, b, c = make(seed=0).state_dict(), make(seed=0).state_dict(), make(seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_blocks_of_the_transformer_are_named_and_tapped() -> None:
    network = transformer()
    assert [block_at(network, f) for f in (0.25, 0.5, 1.0)] == ["blocks.0", "blocks.1", "blocks.2"]
    t, x = points()
    with tap(network, "blocks.1") as tapped:
        network(t, x, None)
    assert tapped.value.shape == (5, 16, 16)  # a token for each of 4 x 4 patches
    with pytest.raises(InputError, match=r"no submodule 'blocks.7'; available: .*blocks\.2"), tap(network, "blocks.7"):
        pass


def test_stages_of_the_unet_can_be_tapped() -> None:
    network, (t, x) = unet(), points()
    for name, shape in (("down.0", (5, 8, 8, 8)), ("middle", (5, 16, 4, 4)), ("up.3", (5, 8, 8, 8))):
        with tap(network, name) as tapped:
            network(t, x, None)
        assert tapped.value.shape == shape


def test_a_unet_on_folded_pixels_learns_the_identity_place_by_place() -> None:
    # With every block still the identity, the outlet sees the inlet: its gradient at a pixel must come from the 3 x 3
    # neighbourhood of 2 x 2 patches around that pixel, twice (inlet and outlet), and from nowhere else.
    network = build(lambda: UNet((1, 16, 16), 0, UNetConfig(width=4, mult=(1,), patch=2)), torch.Generator())
    *_, last = network.outlet.children()
    with torch.no_grad():
        for p in last.parameters():
            p.fill_(0.1)
    network.outlet = nn.Sequential(nn.SiLU(), last)  # a norm over the whole image would mix places
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(network(torch.zeros(1), x, None)[0, 0, 8, 9], x)
    reached = (gradient[0, 0] != 0).nonzero()
    assert reached.min(0).values.tolist() == [4, 4]
    assert reached.max(0).values.tolist() == [13, 13]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet((1, 28, 28), 0, UNetConfig(width=8, mult=(1, 2, 2, 2))), "divisible by 8, found 28 x 28"),
        (lambda: Transformer((1, 8, 8), 0, TransformerConfig(patch=3)), "patch 3 must divide 8 x 8"),
        (lambda: Transformer((1, 8, 8), 0, TransformerConfig(width=20, heads=3)), "heads 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@both
def test_points_of_another_shape_are_refused(make: Callable[..., nn.Module]) -> None:
    with pytest.raises(InputError, match="x must be"):
        make()(torch.zeros(2), torch.zeros(2, 1, 7, 8), None)
    with pytest.raises(InputError, match="x must be"):
        make()(torch.zeros(3), torch.zeros(2, 1, 8, 8), None)
