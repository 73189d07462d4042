"""Checkpoints that are damaged or forged: always one clear error, never a wrong model, never code run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small_run import equal, run

from thalweg.errors import CheckpointError, ThalwegError
from thalweg.training import files
from thalweg.training.checkpoint import folders, latest_checkpoint, read_checkpoint

# --- damage ----------------------------------------------------------------------------------------------------------


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_truncation_at_every_percent_is_found(saved):
    folder = saved / "step-00000010"
    for name in names(folder):
        path = folder / name
        data = path.read_bytes()
        for percent in range(100):
            path.write_bytes(data[: len(data) * percent // 100])
            with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
                read_checkpoint(folder)
        path.write_bytes(data)
    assert read_checkpoint(folder).step == 10


def test_random_flipped_bytes_are_found(saved):
    rng, folder = np.random.default_rng(0), saved / "step-00000010"
    sizes = {name: (folder / name).stat().st_size for name in names(folder)}
    picks = [(name, int(rng.integers(size))) for name, size in sizes.items() for _ in range(10)]
    for name, position in picks:
        path = folder / name
        data = path.read_bytes()
        changed = bytearray(data)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            read_checkpoint(folder)
        path.write_bytes(data)


def test_every_flipped_bit_of_the_manifest_and_of_latest_is_found(saved, caplog):
    for path in (saved / "step-00000010" / "manifest.json", saved / "LATEST"):
        data = path.read_bytes()
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 1 << position % 8
            path.write_bytes(changed)
            caplog.clear()
            assert latest_checkpoint(saved).step == (5 if path.name == "manifest.json" else 10)
            assert "Going on from the newest valid checkpoint" in caplog.text
        path.write_bytes(data)
    caplog.clear()
    assert latest_checkpoint(saved).step == 10
    assert not caplog.text


def test_a_damaged_latest_falls_back_with_a_warning_and_ends_with_the_same_bits(saved, whole, caplog):
    (saved / "step-00000010" / "average.safetensors").unlink()
    assert equal(run(saved, resume=True), whole)
    assert "average.safetensors is missing. Going on from the newest valid checkpoint" in caplog.text
    assert "step-00000005" in caplog.text
    assert [r.levelname for r in caplog.records if "valid" in r.message] == ["WARNING"]


def test_without_a_valid_checkpoint_there_is_one_error_that_names_each(saved):
    (saved / "step-00000010" / "model.safetensors").write_bytes(b"")
    (saved / "step-00000005" / "meta.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no valid checkpoint: .*model\.safetensors is damaged.*meta\.json is missing"
    ):
        run(saved, resume=True)


def test_a_lost_folder_is_not_a_fresh_start(saved):
    for folder in folders(saved):
        folder.rename(saved / ("x" + folder.name))
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        run(saved, resume=True)


def test_a_renamed_folder_is_found(saved):
    (saved / "step-00000010").rename(saved / "step-00000011")
    with pytest.raises(CheckpointError, match="is not of step 11; the folder was renamed"):
        read_checkpoint(saved / "step-00000011")
    with pytest.raises(CheckpointError, match="is not the folder of a checkpoint"):
        read_checkpoint((saved / "LATEST").parent)


def forge(folder, name=None, data=None, manifest=None):
    """Change a file, or fields of the manifest, and make all hashes right again, as one who means harm would."""
    path = folder / "manifest.json"
    content = json.loads(path.read_bytes())["content"]
    if name is not None:
        (folder / name).write_bytes(data)
        content["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_bytes(files.sealed(content | (manifest or {})))
    latest = f"{folder.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
    (folder.parent / "LATEST").write_text(latest)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("code_was_run",))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (pickle.dumps(Bomb()), "it is not read|not readable as safetensors"),
        ((2**40).to_bytes(8, "little") + b"{" * 100, "claims a header of 1099511627776 bytes"),
        ((2**23).to_bytes(8, "little") + b"{" * 2**23, "claims a header of 8388608 bytes"),
        ((10**4).to_bytes(8, "little") + b"[" * 10**4, "not readable as safetensors"),
        (b"", "claims a header"),
        (save({"w": torch.zeros(3)})[:-1], "not readable as safetensors"),
    ],
    ids=["pickle", "huge header", "large header", "nested header", "empty", "short"],
)
def test_a_forged_file_is_refused(saved, tmp_path, monkeypatch, data, match):
    monkeypatch.chdir(tmp_path)
    forge(saved / "step-00000010", "model.safetensors", data)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*({match})"):
        read_checkpoint(saved / "step-00000010")
    assert not (tmp_path / "code_was_run").exists()


def test_wrong_shapes_are_refused_though_all_hashes_match(saved):
    folder = saved / "step-00000010"
    tensors = dict(read_checkpoint(folder).tensors["model"])
    first = next(iter(tensors))
    for wrong in (torch.zeros(1), tensors[first].double(), tensors[first][:1].clone()):
        forge(folder, "model.safetensors", save(tensors | {first: wrong}))
        with pytest.raises(CheckpointError, match=rf"model\.safetensors is of another model: {first} is"):
            run(saved, resume=True)


KEYS = ("best", "history", "sums", "seconds", "finished", "stopped_early", "identity", "notes", "versions")
FREE = ("notes", "versions")  # the caller's own, and what is only logged


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, "nonsense", [1], {"value": "x", "x": 3}])
def test_meta_that_lacks_a_value_is_refused(saved, key, value):
    if key in FREE and isinstance(value, dict):
        pytest.skip("any names and values will do")
    folder = saved / "step-00000010"
    meta = dict(read_checkpoint(folder).meta)
    del meta[key]
    forge(folder, "meta.json", files.to_json(meta | ({} if value is None else {key: value})))
    with pytest.raises(ThalwegError, match=r"meta\.json|no state of a run|is of another run"):
        run(saved, resume=True)


@pytest.mark.parametrize(
    ("manifest", "match"),
    [
        (
            {"files": {"../../secret.safetensors": {"bytes": 1, "sha256": ""}, "meta.json": {}}},
            "no file of a checkpoint",
        ),
        ({"files": {"/etc/passwd": {"bytes": 1, "sha256": ""}, "meta.json": {}}}, "no file of a checkpoint"),
        ({"files": {"meta.json": {"bytes": 1}}}, "no file of a checkpoint"),
        ({"files": {}}, r"lists no meta\.json"),
        ({"files": 3}, r"lists no meta\.json"),
        ({"format": "1"}, "states no format"),
    ],
)
def test_a_forged_manifest_is_refused(saved, manifest, match):
    forge(saved / "step-00000010", manifest=manifest)
    with pytest.raises(CheckpointError, match=rf"manifest\.json.*{match}"):
        read_checkpoint(saved / "step-00000010")


def test_a_newer_format_names_the_version_needed_and_is_no_damage(saved):
    forge(saved / "step-00000010", manifest={"format": 2, "thalweg": "7.1.0"})
    with pytest.raises(
        CheckpointError, match=r"format 2, written by thalweg 7\.1\.0.*Upgrade thalweg to 7\.1\.0 or later"
    ):
        run(saved, resume=True)  # not from the older one, which is valid


def test_memory_stays_below_twice_the_file(tmp_path):
    """A header that claims a terabyte."""
    code = (
        "import sys; from pathlib import Path; import torch; from safetensors.torch import save\n"
        "from benchmarks.reliability.memory import peak\n"
        "from thalweg.training.files import read_tensors; from thalweg.errors import CheckpointError\n"
        "save({'w': torch.zeros(1)})\n"
        "path = Path(sys.argv[1]); size = 2**25\n"
        "with path.open('wb') as f: f.write((2**40).to_bytes(8, 'little')); f.truncate(size)\n"
        "before = peak()\n"
        "try: read_tensors(path)\n"
        "except CheckpointError: print(peak() - before, size)\n"
    )
    command, root = [sys.executable, "-c", code, str(tmp_path / "f")], Path(__file__).parents[2]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    grown, size = map(int, out.stdout.split())
    assert grown < 2 * size
