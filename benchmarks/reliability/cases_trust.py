"""Cases 26 and 27: models and h5ad files of strangers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.reliability import attacks, memory
from benchmarks.reliability.common import Case, Result

import thalweg as tw
from thalweg.data.io import hdf5 as _hdf5
from thalweg.data.io.reader import default_limit


def _growth(call: Callable[[], object]) -> tuple[bool, int]:
    """Whether the package refuses the call, and by how much memory grows meanwhile."""
    memory.reset()
    before = memory.peak()
    try:
        call()
    except tw.errors.ThalwegError:
        return True, memory.peak() - before
    except Exception:
        pass
    return False, memory.peak() - before


@contextmanager
def _marked() -> Iterator[tuple[Path, Path]]:
    """A folder, and the file in it that code of an attack would create."""
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / "ran"
        os.environ[attacks.MARKER] = str(marker)
        yield Path(folder), marker


def models() -> Result:
    base = attacks.honest()
    refused, worst = 0, 0.0
    with _marked() as (_, marker):
        for name in attacks.FIT:
            adata = attacks.fit_attack(base, name)
            stopped, grown = _growth(lambda a=adata: tw.tl.velocity(a))
            refused += stopped
            weights = adata.uns["thalweg"]["weights"]
            weights = weights.get("0") if isinstance(weights, dict) else weights
            if getattr(weights, "nbytes", 0) > 2**24:  # below, the figure would be noise
                worst = max(worst, grown / weights.nbytes)
        ran = marker.exists()
    passed = refused == len(attacks.FIT) and not ran and worst < 2
    return passed, f"{refused} of {len(attacks.FIT)} refused, code run: {ran}, memory {worst:.1f} x the model"


def files() -> Result:
    base = attacks.honest()
    refused, worst = 0, 0
    with _marked() as (folder, marker):
        honest = folder / "honest.h5ad"
        base.write_h5ad(honest)
        read = tw.read_h5ad(honest).n_obs == base.n_obs
        paths = attacks.write_h5ad_attacks(folder, base)
        for path in paths.values():
            stopped, grown = _growth(lambda p=path: tw.read_h5ad(p))
            # What its process of its own does, once more here, where its memory can be seen.
            _, there = _growth(lambda p=path: _hdf5.rehearse(p, default_limit(p.stat().st_size)))
            refused, worst = refused + stopped, max(worst, grown, there)
        ran = marker.exists()
    passed = refused == len(paths) and read and not ran and worst < 2**26
    return passed, f"{refused} of {len(paths)} refused (200 MB included), memory at most {worst / 2**20:.0f} MiB more"


CASES: dict[int, tuple[str, Case]] = {
    26: ("hostile model file", models),
    27: ("hostile h5ad", files),
}
