"""Image sets: their scale, their levels, what is refused, disjoint parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.images.data import (
    ImageSet,
    check_scaled,
    dequantise,
    from_grey,
    grey_levels,
    load,
    split,
    to_levels,
)

from thalweg.errors import InputError


def test_levels_survive_dequantisation_and_fill_the_interval() -> None:
    grey = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    images = from_grey(grey.numpy()[:, 0], np.zeros(256))
    noisy = torch.cat([dequantise(images.x, 256, torch.Generator().manual_seed(s)) for s in range(50)])
    assert torch.equal(grey_levels(noisy, 256), grey.repeat(50, 1, 1, 1))
    assert torch.equal(to_levels(noisy[:256], 256), images.x)
    # The levels tile [-1, 1] without gaps: uniform on it, so the variance is 1/3 and the ends are approached.
    assert noisy.var().item() == pytest.approx(1 / 3, rel=1e-2)
    assert -1 <= noisy.min() < -0.9999
    assert 0.9999 < noisy.max() <= 1


def test_dequantisation_is_the_cores() -> None:
    from thalweg.core.dynamics.likelihood import dequantise as core

    grey = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    ours = dequantise(from_grey(grey.numpy()[:, 0], np.zeros(4)).x, 256, torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, core(grey, torch.Generator().manual_seed(3)), atol=1e-6, rtol=0)


def test_digits_are_the_bundled_ones() -> None:
    images = load("digits")
    assert images.x.shape == (1797, 1, 8, 8)
    assert images.levels == 17
    assert set(grey_levels(images.x, 17).flatten().tolist()) == set(range(17))
    assert torch.bincount(images.y).min() > 170


def test_parts_are_disjoint_and_whole() -> None:
    # Every image carries its own number in its two first pixels.
    n = 300
    grey = np.zeros((n, 1, 2), dtype=np.uint8)
    grey[:, 0, 0], grey[:, 0, 1] = np.arange(n) // 256, np.arange(n) % 256
    parts = split(from_grey(grey, np.zeros(n)))
    numbers = []
    for part in (parts.train, parts.reference, parts.judge):
        k = grey_levels(part.x, 256).long()[:, 0, 0]
        numbers += (256 * k[:, 0] + k[:, 1]).tolist()
    assert sorted(numbers) == list(range(n))


@pytest.mark.parametrize("bad", [1.01, -1.5, 255.0, float("nan")])
def test_images_outside_the_scale_are_refused(bad: float, tmp_path: Path) -> None:
    x = torch.zeros(3, 1, 4, 4)
    x[1, 0, 2, 2] = bad
    with pytest.raises(InputError, match=r"\[-1, 1\].*scale"):
        check_scaled(x)
    with pytest.raises(InputError, match=r"\[-1, 1\].*scale"):
        ImageSet(x, torch.zeros(3, dtype=torch.int64), 256)
    np.savez(tmp_path / "mine.npz", x=x[:, 0].numpy(), y=np.zeros(3))
    with pytest.raises(InputError, match=r"mine.npz must lie in \[-1, 1\]"):
        load(str(tmp_path / "mine.npz"))


def test_a_file_of_bytes_and_one_of_floats_agree(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "bytes.npz", x=grey, y=np.arange(5))
    np.savez(tmp_path / "floats.npz", x=(2 * grey.astype(np.float64) + 1) / 256 - 1, y=np.arange(5))
    a, b = load(str(tmp_path / "bytes.npz")), load(str(tmp_path / "floats.npz"))
    assert a.x.shape == (5, 3, 4, 4)
    torch.testing.assert_close(a.x, b.x)
    assert torch.equal(a.y, b.y)


def test_missing_data_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THALWEG_DATA_DIR", raising=False)
    with pytest.raises(InputError, match="set THALWEG_DATA_DIR or pass --data-dir"):
        load("mnist")
    with pytest.raises(InputError, match=r"mnist_train\.npz does not exist"):
        load("mnist", tmp_path)
    with pytest.raises(InputError, match="cifar-10-batches-py"):
        load("cifar10", tmp_path)
    with pytest.raises(InputError, match="one of digits, mnist"):
        load("mnits")
    np.savez(tmp_path / "no_labels.npz", x=np.zeros((2, 4, 4), dtype=np.uint8))
    with pytest.raises(InputError, match="no array 'y'; found x"):
        load(str(tmp_path / "no_labels.npz"))
    with pytest.raises(InputError, match="600 images were asked for, found 503"):
        split(load("digits")).reference.head(600)
