"""One run: train a model with an objective, score it, keep the weights, the samples and a JSON of everything.

A run's folder is ``<out>/<dataset>/<table>/<name>-s<seed>/`` with ``model.safetensors`` (averaged weights),
``samples.safetensors`` (grey levels of the first samples) and ``result.json``, which is written last: a run with it is
skipped. Until then the training's checkpoints (`thalweg.training.Checkpoints`) are in ``checkpoints/``, and a run that
was killed goes on from them to the bit; one of several processes is made again. The key is a hash of the configuration;
a folder made with another configuration is an error, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from benchmarks.images.data import ImageSet, dequantise
from benchmarks.images.embedding import build
from benchmarks.images.evaluation import Evaluation
from benchmarks.images.objectives import Objective, terms
from benchmarks.images.parallel import World
from benchmarks.images.transformer import Transformer, TransformerConfig
from benchmarks.images.unet import UNet, UNetConfig
from torch import Tensor, nn

from thalweg.errors import CheckpointError, InputError
from thalweg.training import Checkpoints, TrainingConfig, TrainingResult, train
from thalweg.training.files import read_tensors, replace_file, to_json, to_safetensors

FORMAT = 1


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a result besides the machine.

    Attributes
    ----------
    dataset
        Name of the image set, see `data.load`.
    objective, model, training, evaluation
        What is trained, and how it is scored.
    seed
        Of weights, batches and samples; the split and the judge are common to all runs.
    conditional, label_drop
        Whether the model is given the classes, and the share of them replaced by the null class.
    flip
        Mirror images at random.
    bfloat16
        Mixed precision: the network runs in bfloat16, losses and weights in float32.
    processes
        Number of processes that share a step; each draws ``training.batch_size`` images.
    translation
        Classes of the source and of the target images; None starts from noise.
    """

    dataset: str = "digits"
    objective: Objective = field(default_factory=Objective)
    model: UNetConfig | TransformerConfig = field(default_factory=UNetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = 0
    conditional: bool = False
    label_drop: float = 0.0
    flip: bool = False
    bfloat16: bool = False
    processes: int = 1
    translation: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def record(self) -> dict[str, Any]:
        """The configuration as plain JSON values; None is left out, so that an option added later changes no key."""
        record = {"format": FORMAT, "network": type(self.model).__name__.removesuffix("Config").lower(), **asdict(self)}
        plain: dict[str, Any] = _given(json.loads(json.dumps(record)))
        return plain

    @property
    def key(self) -> str:
        """Hash of the configuration."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:16]


def _given(record: Any) -> Any:
    """The record without entries that are None."""
    if isinstance(record, dict):
        return {key: _given(value) for key, value in record.items() if value is not None}
    return record


def make_network(config: RunConfig, images: ImageSet) -> nn.Module:
    """The network of a run with its first weights."""
    shape = (images.x.shape[1], images.x.shape[2], images.x.shape[3])
    n_classes = images.n_classes if config.conditional else 0
    generator = torch.Generator().manual_seed(config.seed)
    if isinstance(config.model, TransformerConfig):
        options = config.model
        return build(lambda: Transformer(shape, n_classes, options), generator)
    unet = config.model
    return build(lambda: UNet(shape, n_classes, unet), generator)


def fit(
    config: RunConfig,
    images: ImageSet,
    world: World,
    *,
    source: ImageSet | None = None,
    folder: Path | None = None,
    progress: bool = True,
    description: str = "training",
) -> tuple[nn.Module, TrainingResult]:
    """Train the network of a run.

    Parameters
    ----------
    config
        The run.
    images
        Images to learn, on ``world.device``.
    world
        This process among those that share the run.
    source
        Images to start from; Gaussian noise by default.
    folder
        Folder of checkpoints to write and go on from; none by default. Not used by runs of several processes.
    progress, description
        Progress bar and its label.
    """
    network = make_network(config, images).to(world.device)
    forward, objective = world.shared(network, config.objective)

    def batch(x: ImageSet, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(x), (n,), generator=generator, device=world.device)
        drawn = dequantise(x.x[rows], x.levels, generator)
        if config.flip:
            mirrored = torch.rand(n, generator=generator, device=world.device) < 0.5
            drawn = torch.where(mirrored[:, None, None, None], drawn.flip(-1), drawn)
        return drawn, x.y[rows]

    def loss(_: nn.Module, n: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        x1, y = batch(images, n, generator)
        x0 = None if source is None else batch(source, n, generator)[0]
        labels = y if config.conditional else None
        options = {"source": x0, "drop": config.label_drop, "null": images.n_classes}
        with torch.autocast(world.device.type, torch.bfloat16, enabled=config.bfloat16):
            return terms(forward, objective, x1, labels, generator, **options)  # type: ignore[arg-type]

    seed = 1000 * config.seed + 1 + world.rank
    with torch.random.fork_rng():  # dropout alone draws from torch's own generator: seeded here and given back
        torch.manual_seed(seed)
        generator = torch.Generator(world.device).manual_seed(seed)
        options = {"progress": progress and world.first, "description": description}
        points = None if folder is None or world.size > 1 else _checkpoints(folder, config, world, images, source)
        result = train(network, loss, config.training, generator, checkpoints=points, **options)
    return network.eval(), result


def _checkpoints(
    folder: Path, config: RunConfig, world: World, images: ImageSet, source: ImageSet | None
) -> Checkpoints:
    sets = (images,) if source is None else (images, source)
    data = hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for part in sets for t in (part.x, part.y))).hexdigest()
    cuda = world.device.type == "cuda"
    dropout = torch.cuda.default_generators[world.device.index or 0] if cuda else torch.default_generator
    identity = {"run": config.record(), "images": data[:16], "device": world.device.type}
    return Checkpoints(folder, identity, resume=True, generators={"dropout": dropout})


def execute(
    config: RunConfig,
    images: ImageSet,
    score: Callable[[nn.Module], tuple[dict[str, Any], Tensor]],
    folder: Path,
    world: World,
    *,
    source: ImageSet | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Make a run, or return its stored result.

    Parameters
    ----------
    config, images, world, source, progress
        As in `fit`.
    score
        Function of the trained network: scores, and samples as grey levels (uint8).
    folder
        Folder of the run.

    Returns
    -------
    The content of ``result.json``: ``key``, ``config``, ``name``, ``scores``, ``history``, seconds.

    Raises
    ------
    InputError
        If the folder holds a run of another configuration.
    """
    stored = read_result(folder, config)
    world.wait()  # no process may find the result that another has just written
    if stored is not None:
        return stored
    start = time.perf_counter()
    points = folder / "checkpoints"
    network, trained = fit(
        config, images, world, source=source, folder=points, progress=progress, description=folder.name
    )
    seconds = time.perf_counter() - start + trained.earlier_seconds
    result: dict[str, Any] = {"key": config.key, "config": config.record(), "name": folder.name}
    if world.first:
        start = time.perf_counter()
        scores, samples = score(network)
        result |= {"scores": scores, "train_seconds": seconds, "score_seconds": time.perf_counter() - start}
        result["history"] = trained.history
        save(folder, config, network, samples, result)
        shutil.rmtree(points, ignore_errors=True)  # the result stands for them
    world.wait()
    return result


def save(folder: Path, config: RunConfig, network: nn.Module, samples: Tensor, result: dict[str, Any]) -> None:
    """Write weights, samples, then ``result.json``, each moved into place whole."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for name, tensors in (("model", network.state_dict()), ("samples", {"grey": samples})):
        data = to_safetensors(tensors, {"key": config.key})
        sums[name] = hashlib.sha256(data).hexdigest()
        replace_file(folder / f"{name}.safetensors", data)
    replace_file(folder / "result.json", to_json({**result, "sha256": sums}))


def read_result(folder: Path, config: RunConfig) -> dict[str, Any] | None:
    """Stored result of a run; None if there is none yet.

    Raises
    ------
    InputError
        If it is of another configuration; the message names the first difference.
    """
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not readable as JSON ({error}); delete the folder to make the run again."
        ) from error
    if stored.get("key") != config.key:
        changed = _difference(stored.get("config", {}), config.record())
        raise InputError(
            f"{folder} holds a run of another configuration ({changed}); "
            "pass another --out, or delete the folder to make the run again."
        )
    return stored


def load_network(folder: Path, config: RunConfig, images: ImageSet) -> nn.Module:
    """The trained network of a finished run.

    Raises
    ------
    InputError
        If the file is absent or of another configuration.
    CheckpointError
        If it is damaged.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(f"{path} does not exist; make the run first.")
    weights, metadata = read_tensors(path)
    if metadata.get("key") != config.key:
        found = metadata.get("key")
        raise InputError(f"{path} was made with configuration {found}, not {config.key}; make the run again.")
    sums = (read_result(folder, config) or {}).get("sha256", {})  # runs made before sums were stored have none
    if "model" in sums and hashlib.sha256(path.read_bytes()).hexdigest() != sums["model"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of result.json; make the run again.")
    network = make_network(config, images)
    network.load_state_dict(weights)
    return network.eval()


def _difference(found: Any, asked: Any, name: str = "") -> str:
    """First entry in which two configurations differ."""
    if isinstance(found, dict) and isinstance(asked, dict):
        for key in sorted(found.keys() | asked.keys()):
            if found.get(key) != asked.get(key):
                return _difference(found.get(key), asked.get(key), f"{name}.{key}".lstrip("."))
    return f"{name} is {found}, asked is {asked}"
