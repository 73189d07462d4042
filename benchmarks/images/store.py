"""Whole tables of runs, and the classifier that all of them share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.images.data import ImageSet, Split
from benchmarks.images.embedding import build
from benchmarks.images.evaluation import evaluate, floor
from benchmarks.images.judge import Judge, JudgeConfig, fit_judge
from benchmarks.images.parallel import World
from benchmarks.images.runs import RunConfig, execute
from torch import Tensor, nn
from tqdm.auto import tqdm

from thalweg.errors import InputError
from thalweg.training.files import read_tensors, replace_file, to_safetensors


def slug(name: str) -> str:
    """Name of a run as the name of its folder."""
    return name.replace(" ", "_").replace("=", "")


def run_table(
    runs: dict[str, RunConfig], split: Split, judge: Judge, folder: Path, world: World, *, progress: bool = True
) -> dict[str, Any]:
    """Make the runs of a table that are not there yet.

    Parameters
    ----------
    runs
        Configurations by name; names end with ``-s<seed>``.
    split, judge
        Images and classifier, on ``world.device``.
    folder
        Folder of the table's runs.
    world
        This process.
    progress
        Progress bars.

    Returns
    -------
    ``runs`` (name to stored result) and ``floor`` (training against reference images at the same number).
    """

    def scorer(config: RunConfig) -> Callable[[nn.Module], tuple[dict[str, Any], Tensor]]:
        options = (config.objective, config.evaluation, split, judge, config.seed, config.conditional)
        return lambda network: evaluate(network, *options)

    results = {}
    for name, config in tqdm(runs.items(), desc=folder.name, disable=not (progress and world.first)):
        results[name] = execute(config, split.train, scorer(config), folder / slug(name), world, progress=progress)
    n = next(iter(runs.values())).evaluation.n
    return {"runs": results, "n": n, "floor": floor(split, judge, n)}


def stored_judge(
    folder: Path, dataset: str, images: ImageSet, config: JudgeConfig, world: World, *, progress: bool = True
) -> Judge:
    """The classifier of a data set: read where it was stored, else trained and stored.

    Parameters
    ----------
    folder
        Folder of the data set's runs.
    dataset, images
        Name of the data set and its ``judge`` part.
    config
        Size and training.
    world, progress
        As in `run_table`.

    Raises
    ------
    InputError
        If a stored classifier is of another configuration.
    """
    path = folder / "judge.safetensors"
    record = json.dumps([dataset, len(images), dataclasses.asdict(config)])
    key = hashlib.sha256(record.encode()).hexdigest()[:16]
    shape = (images.x.shape[1], images.x.shape[2], images.x.shape[3])
    there = path.is_file()
    world.wait()
    if there:
        weights, metadata = read_tensors(path)
        if metadata.get("key") != key:
            found = metadata.get("key")
            raise InputError(f"{path} was made with configuration {found}, not {key}; delete it or pass another --out.")
        judge = build(lambda: Judge(shape, images.n_classes, config), torch.Generator())
        judge.load_state_dict(weights)
        return judge.to(world.device).eval()
    judge = fit_judge(images, config, progress=progress and world.first)
    if world.first:
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / ".gitignore").write_text("*\n")  # weights and samples are made again, not kept in a repository
        replace_file(path, to_safetensors(judge.state_dict(), {"key": key}))
    return judge
