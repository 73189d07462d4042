"""Runs: finished ones are kept, unfinished ones made again, those of another configuration refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.images import report, tables
from benchmarks.images import runs as runs_module
from benchmarks.images.data import Split, from_grey, split
from benchmarks.images.evaluation import Evaluation
from benchmarks.images.fid import inception_fid
from benchmarks.images.flows import Sampler
from benchmarks.images.judge import Judge, JudgeConfig, fit_judge
from benchmarks.images.objectives import Objective
from benchmarks.images.parallel import World
from benchmarks.images.runs import RunConfig, load_network, make_network
from benchmarks.images.store import run_table, stored_judge
from benchmarks.images.transformer import TransformerConfig
from benchmarks.images.translation import run_translation
from benchmarks.images.unet import UNetConfig

from thalweg.core.objectives import Contrastive, Dispersive
from thalweg.errors import CheckpointError, InputError
from thalweg.training import Checkpoints, TrainingConfig, latest_checkpoint

ROOT = Path(__file__).parents[2]
HERE = World(torch.device("cpu"))
TINY = RunConfig(
    dataset="stripes",
    model=TransformerConfig(width=8, depth=1, heads=1),
    training=TrainingConfig(max_steps=3, batch_size=8, validate_every=1),
    evaluation=Evaluation(n=20, samplers=(Sampler("euler", 2),), bits_images=4, kept=20),
    conditional=True,
    label_drop=0.2,
)


@pytest.fixture(scope="module")
def parts() -> Split:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    grey = rng.integers(0, 60, (120, 4, 4)) + np.where(np.arange(4) % 2 == y[:, None, None], 190, 0)
    return split(from_grey(grey, y))


@pytest.fixture(scope="module")
def judge(parts: Split) -> Judge:
    return fit_judge(parts.judge, JudgeConfig(width=4, features=3, steps=150), progress=False)


def make(runs: dict[str, RunConfig], parts: Split, judge: Judge, folder: Path) -> dict[str, Any]:
    return run_table(runs, parts, judge, folder, HERE, progress=False)


def test_the_judge_tells_classes_apart(parts: Split, judge: Judge) -> None:
    assert judge.accuracy(parts.reference.x, parts.reference.y) > 0.9
    features = judge.features(parts.judge.x)
    torch.testing.assert_close(features.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(3))
    with pytest.raises(InputError, match=r"\[-1, 1\]"):
        judge.features(parts.judge.x * 2)


def test_a_table_killed_between_runs_goes_on(parts: Split, judge: Judge, tmp_path: Path) -> None:
    runs = tables.with_seeds({"a": TINY, "b c": replace(TINY, objective=Objective("otcfm"))}, 2)
    whole = make(runs, parts, judge, tmp_path / "whole" / "t")
    make({"a-s0": runs["a-s0"]}, parts, judge, tmp_path / "cut" / "t")
    # A kill while the second run was written: weights are there, the result is not.
    half = tmp_path / "cut" / "t" / "b_c-s0"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (half / "result.part").write_text('{"key": ')
    kept = tmp_path / "cut" / "t" / "a-s0" / "result.json"
    stamp = kept.stat().st_mtime_ns
    resumed = make(runs, parts, judge, tmp_path / "cut" / "t")
    assert kept.stat().st_mtime_ns == stamp
    for name in runs:
        a, b = whole["runs"][name]["scores"], resumed["runs"][name]["scores"]
        for row in (*a["samplers"], *b["samplers"]):
            row.pop("seconds")
        a.pop("bits_seconds")
        b.pop("bits_seconds")
        assert a == b, name
    assert (half / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "t" / "b_c-s0" / "model.safetensors"
    ).read_bytes()


class Killed(BaseException):
    """Ends a run at once, as a signal would."""


def test_a_run_killed_within_training_goes_on_to_the_bit(
    parts: Split, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(
        TINY,
        model=UNetConfig(width=8, mult=(1,), dropout=0.3),  # draws from torch's own generator
        training=TrainingConfig(max_steps=9, batch_size=8, validate_every=2),
    )
    make({"a-s0": config}, parts, judge, tmp_path / "whole" / "t")
    monkeypatch.setattr(runs_module, "Checkpoints", partial(Checkpoints, every=2))
    calls, terms = [0], runs_module.terms

    def cut(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise Killed
        return terms(*args, **kwargs)

    monkeypatch.setattr(runs_module, "terms", cut)
    folder = tmp_path / "cut" / "t" / "a-s0"
    with pytest.raises(Killed):
        make({"a-s0": config}, parts, judge, folder.parent)
    assert latest_checkpoint(folder / "checkpoints").step == 4  # type: ignore[union-attr]
    other = replace(config, training=replace(config.training, learning_rate=1e-4))
    with pytest.raises(InputError, match=r"run\.training\.learning_rate is 0\.005 there and 0\.0001 here"):
        make({"a-s0": other}, parts, judge, folder.parent)
    make({"a-s0": config}, parts, judge, folder.parent)
    assert calls[0] == 6 + 5  # steps 5 to 9
    whole = tmp_path / "whole" / "t" / "a-s0" / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == whole.read_bytes()
    assert not (folder / "checkpoints").exists()


def test_a_damaged_result_is_found(parts: Split, judge: Judge, tmp_path: Path) -> None:
    make({"a-s0": TINY}, parts, judge, tmp_path / "r" / "t")
    path = tmp_path / "r" / "t" / "a-s0" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_network(path.parent, TINY, parts.train)


def test_another_configuration_is_refused_and_named(parts: Split, judge: Judge, tmp_path: Path) -> None:
    make({"a-s0": TINY}, parts, judge, tmp_path / "r" / "t")
    other = replace(TINY, training=replace(TINY.training, learning_rate=1e-4))
    with pytest.raises(InputError, match=r"training.learning_rate is 0.005, asked is 0.0001.*--out"):
        make({"a-s0": other}, parts, judge, tmp_path / "r" / "t")
    folder = tmp_path / "r" / "t" / "a-s0"
    with pytest.raises(InputError, match="was made with configuration"):
        load_network(folder, other, parts.train)
    with pytest.raises(InputError, match="does not exist; make the run first"):
        load_network(tmp_path, TINY, parts.train)
    (folder / "result.json").write_text('{"key": "')
    with pytest.raises(InputError, match=r"not readable as JSON.*delete the folder"):
        make({"a-s0": TINY}, parts, judge, tmp_path / "r" / "t")


def test_weights_come_back_and_are_the_trained_ones(parts: Split, judge: Judge, tmp_path: Path) -> None:
    make({"a-s0": TINY}, parts, judge, tmp_path / "r" / "t")
    loaded, fresh = load_network(tmp_path / "r" / "t" / "a-s0", TINY, parts.train), make_network(TINY, parts.train)
    moved = [not torch.equal(p, q) for p, q in zip(loaded.parameters(), fresh.parameters(), strict=True)]
    assert all(moved)


def test_lambda_zero_trains_the_plain_run_bit_for_bit(parts: Split, judge: Judge, tmp_path: Path) -> None:
    zero = replace(TINY, objective=Objective(contrastive=Contrastive(0.0)))
    make({"a-s0": TINY, "b-s0": zero}, parts, judge, tmp_path / "r" / "t")
    a, b = ((tmp_path / "r" / "t" / f"{n}-s0" / "samples.safetensors") for n in "ab")
    from safetensors.torch import load_file

    assert torch.equal(load_file(a)["grey"], load_file(b)["grey"])


def test_the_judge_is_stored_once_and_checked(parts: Split, tmp_path: Path) -> None:
    config = JudgeConfig(width=4, features=3, steps=5)
    first = stored_judge(tmp_path / "r", "stripes", parts.judge, config, HERE, progress=False)
    again = stored_judge(tmp_path / "r", "stripes", parts.judge, config, HERE, progress=False)
    assert torch.equal(first.features(parts.train.x), again.features(parts.train.x))
    with pytest.raises(InputError, match="delete it or pass another --out"):
        stored_judge(tmp_path / "r", "stripes", parts.judge, replace(config, steps=6), HERE)


def test_translation_refuses_classes_that_overlap_or_are_empty(parts: Split, judge: Judge, tmp_path: Path) -> None:
    for classes, message in ((((0, 1), (1,)), "overlap"), (((0,), (7,)), r"\[7\] have no images")):
        runs = {"otcfm-s0": replace(TINY, translation=classes, conditional=False, objective=Objective("otcfm"))}
        with pytest.raises(InputError, match=message):
            run_translation(runs, parts, judge, tmp_path / "t", HERE, progress=False)


def test_tables_state_what_the_questions_ask() -> None:
    changes = tables.Changes()
    assert list(tables.objectives("digits", changes)) == ["fm-ot", "fm-vp", "sm-vp", "icfm", "otcfm", "sbcfm"]
    lambdas = tables.contrastive("digits", changes)
    weights = [c.objective.contrastive.weight for c in lambdas.values() if c.objective.contrastive]
    assert weights == [0, 0.01, 0.05, 0.1, 0.2]
    # Guided and unguided samplers spend the same passes: half the steps, two passes each.
    passes = {s.steps * (2 if s.guidance != 1 else 1) for c in lambdas.values() for s in c.evaluation.samplers}
    assert passes == {8, 32}
    variants = tables.dispersive("digits", changes, weights=(0.25, 0.5), taus=(0.5, 1.0), blocks=("0.25", "blocks.3"))
    assert len(variants) == 1 + 4 * 8 * 3
    assert len({c.key for c in variants.values()}) == len(variants)
    assert {c.objective.dispersive.block for c in variants.values() if c.objective.dispersive} == {0.25, "blocks.3"}


def test_summary_is_mean_deviation_and_paired_interval() -> None:
    def run(fd: float) -> dict[str, Any]:
        return {"scores": {"samplers": [{"sampler": "euler-8", "fd": fd, "nfe": 8.0}], "straightness": fd / 10}}

    runs = {f"none-s{k}": run(v) for k, v in enumerate((1.0, 2.0, 3.0))}
    runs |= {f"hinge-s{k}": run(v) for k, v in enumerate((1.5, 2.5, 3.8))}
    rows = report.summarise({"runs": runs})["rows"]
    assert rows[0]["fd"] == [2.0, 1.0]
    mean, half = report.difference(rows[1], rows[0])
    gaps = np.array([0.5, 0.5, 0.8])
    assert mean == pytest.approx(gaps.mean())
    from scipy.stats import t

    assert half == pytest.approx(t.ppf(0.975, 2) * gaps.std(ddof=1) / np.sqrt(3), rel=1e-3)
    text = report.markdown({"rows": rows, "n": 50, "floor": {"fd": 0.3}})
    assert "+0.600 ± 0.430" in text
    assert text.splitlines()[-1].startswith("| floor: 50 real images |  | 0.300")


@pytest.mark.slow
def test_two_processes_share_a_step(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import numpy as np\n"
        "from dataclasses import replace\n"
        "from benchmarks.images.data import from_grey\n"
        "from benchmarks.images.objectives import Objective\n"
        "from benchmarks.images.parallel import world\n"
        "from benchmarks.images.runs import RunConfig, fit\n"
        "from benchmarks.images.transformer import TransformerConfig\n"
        "from thalweg.core.objectives import Dispersive\n"
        "from thalweg.training import TrainingConfig\n"
        "images = from_grey(np.random.default_rng(0).integers(0, 256, (30, 4, 4)), np.arange(30) % 2)\n"
        "config = RunConfig(model=TransformerConfig(width=8, depth=2, heads=1), processes=2, conditional=True,\n"
        "    objective=Objective(dispersive=Dispersive(block='blocks.0')),\n"
        "    training=TrainingConfig(max_steps=4, batch_size=8, ema_decay=0.0))\n"
        "with world('cpu') as here:\n"
        "    network, result = fit(config, images, here, progress=False)\n"
        "    mine = torch.cat([p.detach().flatten() for p in network.parameters()])\n"
        "    all_ = [torch.empty_like(mine) for _ in range(here.size)]\n"
        "    torch.distributed.all_gather(all_, mine)\n"
        "    assert torch.equal(*all_)\n"
        "    losses = torch.tensor(result.history['velocity'])\n"
        "    both = [torch.empty_like(losses) for _ in range(2)]\n"
        "    torch.distributed.all_gather(both, losses)\n"
        "    assert not torch.equal(*both)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["objectives", "--objectives", "fm-tv"], "objective must be one of"),
        (["--dataset", "mnist"], "set THALWEG_DATA_DIR"),
        (["dispersive", "--kinds", "l3"], "kind must be one of"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--threads", "0"], "threads must be at least 1"),
    ],
)
def test_the_command_ends_with_a_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.images import __main__ as command

    monkeypatch.delenv("THALWEG_DATA_DIR", raising=False)
    monkeypatch.setattr(command, "stored_judge", lambda *a, **k: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "argv", ["images", *arguments, "--out", str(tmp_path), "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=message):
        command.main()


def test_configurations_are_plain_json() -> None:
    config = replace(TINY, objective=Objective(dispersive=Dispersive()))
    assert json.loads(json.dumps(config.record())) == config.record()
    assert config.key != TINY.key
    assert replace(config, seed=1).key != config.key


def test_true_fid_says_what_it_needs(parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "inception.pth"
    with pytest.raises(InputError, match=r"inception\.pth does not exist.*FD is computed without it"):
        inception_fid(tmp_path, TINY, parts, weights, HERE)
    weights.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if it were not installed
    with pytest.raises(InputError, match="needs torchmetrics and torch-fidelity"):
        inception_fid(tmp_path, TINY, parts, weights, HERE)


def test_the_report_fills_its_markers_and_only_those(tmp_path: Path) -> None:
    rows = [{"name": "a", "sampler": "euler-8", "seeds": 1, "fd": [0.5, None], "fd_values": [0.5]}]
    (tmp_path / "images_x.json").write_text(json.dumps({"rows": rows, "n": 9, "floor": {"fd": 0.1}}))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:images_x -->\nold\n<!-- /results:images_x -->\nafter\n")
    report.write(tmp_path, tmp_path, readme)
    first = readme.read_text()
    assert first.startswith("before\n<!-- results:images_x -->\n| run |")
    assert "old" not in first
    assert "| a | euler-8 | 0.500 | 1 |" in first
    assert first.endswith("<!-- /results:images_x -->\nafter\n")
    report.write(tmp_path, tmp_path, readme)
    assert readme.read_text() == first
    readme.write_text("<!-- results:images_y --><!-- /results:images_y -->")
    with pytest.raises(InputError, match=r"images_y\.json does not exist; run the table's command"):
        report.write(tmp_path, tmp_path, readme)
