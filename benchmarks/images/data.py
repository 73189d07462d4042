"""Image sets in [-1, 1] and their split into three disjoint parts.

An image of ``L`` grey levels ``k = 0 .. L-1`` is held at the middle of its level, ``x = (2k + 1)/L - 1``, so that
uniform dequantisation is ``x + U[-1, 1)/L`` and stays inside [-1, 1]; for ``L = 256`` this is the scale of
`thalweg.core.dynamics.likelihood`. Models are trained on dequantised images, and samples are put back on their levels
before they are scored or shown.

The parts: ``train`` for the generative models, ``reference`` to score samples against, ``judge`` for the classifier in
whose features they are scored. The floor of every score is ``train`` against ``reference`` at equal size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thalweg.errors import InputError

DATASETS = ("digits", "mnist", "cifar10_4k", "cifar10")
_SPLIT_SEED = 0  # one split for all runs: seeds vary the training, not the yardstick


def check_scaled(x: Tensor, name: str = "images") -> None:
    """Refuse what is not a floating batch of images in [-1, 1].

    Raises
    ------
    InputError
        If the shape is not (n, channels, height, width), a value is not finite or lies outside [-1, 1].
    """
    if not x.is_floating_point() or x.ndim != 4 or not x.numel():
        raise InputError(
            f"{name} must be a floating tensor (n, channels, height, width), found {x.dtype} {tuple(x.shape)}."
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= -1 and high <= 1):  # also false for NaN
        raise InputError(
            f"{name} must lie in [-1, 1], found [{low:g}, {high:g}]; scale 8-bit values k by (2 k + 1) / 256 - 1, "
            "or hand them over as uint8."
        )


@dataclass(frozen=True)
class ImageSet:
    """Images, their labels and the number of their grey levels.

    Attributes
    ----------
    x
        Images at the middle of their levels, float32 (n, channels, height, width) in [-1, 1].
    y
        Class of each image, int64 (n,), from 0.
    levels
        Number of grey levels ``L``.
    """

    x: Tensor
    y: Tensor
    levels: int

    def __post_init__(self) -> None:
        check_scaled(self.x)
        if self.y.shape != self.x.shape[:1] or self.y.dtype != torch.int64 or int(self.y.min()) < 0:
            raise InputError(f"y must be int64 labels of shape ({len(self.x)},), from 0; found {tuple(self.y.shape)}.")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def n_classes(self) -> int:
        """Number of classes, one more than the largest label."""
        return int(self.y.max()) + 1

    def rows(self, index: Tensor) -> ImageSet:
        """The images at some rows."""
        return ImageSet(self.x[index], self.y[index], self.levels)

    def head(self, n: int) -> ImageSet:
        """The first ``n`` images; fewer are an error, because scores depend on the number.

        Raises
        ------
        InputError
            If there are fewer.
        """
        if n > len(self):
            raise InputError(f"{n} images were asked for, found {len(self)}; lower the number of samples scored.")
        return ImageSet(self.x[:n], self.y[:n], self.levels)

    def to(self, device: torch.device) -> ImageSet:
        """The same images on a device."""
        return ImageSet(self.x.to(device), self.y.to(device), self.levels)


def dequantise(x: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Add ``U[-1, 1)/levels`` to images at the middle of their levels."""
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + (2 * noise - 1) / levels


def grey_levels(x: Tensor, levels: int) -> Tensor:
    """Level ``0 .. levels - 1`` (uint8) that each value lies in; values beyond [-1, 1] lie in the outermost."""
    return ((x + 1) * (levels / 2)).floor().clamp(0, levels - 1).to(torch.uint8)


def to_levels(x: Tensor, levels: int) -> Tensor:
    """Put images on the middle of their levels."""
    return (2 * grey_levels(x, levels).to(x.dtype) + 1) / levels - 1


def from_grey(grey: np.ndarray, labels: np.ndarray, levels: int = 256) -> ImageSet:
    """Image set of integer grey levels (n, height, width) or (n, height, width, channels).

    Raises
    ------
    InputError
        If the values are not integers in ``0 .. levels - 1`` or the array has another number of axes.
    """
    if not np.issubdtype(grey.dtype, np.integer) or grey.ndim not in (3, 4):
        raise InputError(
            f"x must be integer grey levels (n, height, width[, channels]), found {grey.dtype} {grey.shape}."
        )
    if grey.size and not (int(grey.min()) >= 0 and int(grey.max()) < levels):
        raise InputError(f"grey levels must lie in 0 .. {levels - 1}, found {grey.min()} .. {grey.max()}.")
    planes = grey[..., None] if grey.ndim == 3 else grey
    k = torch.from_numpy(np.ascontiguousarray(planes.transpose(0, 3, 1, 2), dtype=np.float32))
    return ImageSet((2 * k + 1) / levels - 1, torch.from_numpy(labels.astype(np.int64)), levels)


def load(dataset: str, data_dir: Path | None = None) -> ImageSet:
    """Load a data set by name, or from an ``.npz`` file with arrays ``x`` and ``y``.

    Parameters
    ----------
    dataset
        ``"digits"`` (bundled with scikit-learn: 1,797 images 8 x 8 of 17 levels), ``"mnist"``, ``"cifar10_4k"``,
        ``"cifar10"`` (torchvision's folder, not downloaded), or the path of a file whose ``x`` holds uint8 images
        (n, height, width[, channels]) or floats in [-1, 1], which are put on 256 levels.
    data_dir
        Folder of the named sets; by default the environment's ``THALWEG_DATA_DIR``.

    Raises
    ------
    InputError
        For an unknown name, a file that is not there, or images that cannot be used.
    """
    if dataset == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return from_grey(bunch.images.astype(np.int64), bunch.target, levels=17)
    if dataset.endswith(".npz"):
        return _from_file(Path(dataset))
    if dataset not in DATASETS:
        raise InputError(
            f"dataset must be one of {', '.join(DATASETS)} or the path of an .npz file, found {dataset!r}."
        )
    folder = data_dir or (Path(os.environ["THALWEG_DATA_DIR"]) if "THALWEG_DATA_DIR" in os.environ else None)
    if folder is None:
        raise InputError(
            f"{dataset} needs a folder: set THALWEG_DATA_DIR or pass --data-dir; only digits needs no data folder."
        )
    if dataset == "cifar10":
        return _cifar10(folder)
    if dataset == "cifar10_4k":
        return _from_file(folder / "cifar10_4k" / "cifar10_lossless_4k.npz")
    return _join(*(_from_file(folder / "mnist" / f"mnist_{part}.npz") for part in ("train", "test")))


def _from_file(path: Path) -> ImageSet:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; put the file there or point THALWEG_DATA_DIR to the folder that has it."
        )
    with np.load(path, allow_pickle=False) as file:
        missing = {"x", "y"} - set(file.files)
        if missing:
            raise InputError(f"{path} has no array {sorted(missing)[0]!r}; found {', '.join(file.files) or 'none'}.")
        x, y = file["x"], file["y"]
    if not np.issubdtype(x.dtype, np.floating):
        return from_grey(x, y)
    planes = torch.from_numpy((x[..., None] if x.ndim == 3 else x).astype(np.float32)).movedim(-1, 1).contiguous()
    check_scaled(planes, f"x of {path}")
    return ImageSet(to_levels(planes, 256), torch.from_numpy(y.astype(np.int64)), 256)


def _cifar10(folder: Path) -> ImageSet:
    if not (folder / "cifar-10-batches-py").is_dir():
        raise InputError(
            f"{folder} has no folder cifar-10-batches-py; unpack the CIFAR-10 Python archive there, or use cifar10_4k."
        )
    try:
        from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "cifar10 is read by torchvision, which is not installed; `pip install torchvision`."
        ) from error
    parts = [CIFAR10(str(folder), train=train, download=False) for train in (True, False)]
    return _join(*(from_grey(np.asarray(p.data), np.asarray(p.targets)) for p in parts))


def _join(first: ImageSet, second: ImageSet) -> ImageSet:
    return ImageSet(torch.cat([first.x, second.x]), torch.cat([first.y, second.y]), first.levels)


@dataclass(frozen=True)
class Split:
    """Disjoint parts of an image set, see the module's docstring."""

    train: ImageSet
    reference: ImageSet
    judge: ImageSet


def split(images: ImageSet, reference: float = 0.28, judge: float = 0.28, largest: int = 10_000) -> Split:
    """Split by a fixed permutation.

    Parameters
    ----------
    images
        The whole set.
    reference, judge
        Shares of these parts; the rest is ``train``.
    largest
        Most images in each of them: of a large set, nearly all is for training.

    Raises
    ------
    InputError
        If a part would be empty.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    a, b = (min(largest, int(share * len(images))) for share in (reference, judge))
    if min(a, b, len(images) - a - b) < 1:
        raise InputError(f"{len(images)} images cannot be split into three parts; give more images.")
    return Split(images.rows(order[a + b :]), images.rows(order[:a]), images.rows(order[a : a + b]))
