"""Look-up order, sha256 and errors of `fetch`, against a server on this machine; the network is never touched."""

from __future__ import annotations

import gc
import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pooch
import pytest

from thalweg.datasets import _registry, cite, fetch
from thalweg.datasets._registry import DATA_DIR, FILES, File, Source
from thalweg.errors import InputError

NAME = "demo/cells.npy"
CONTENT = b"the bytes of a data file"


class Site:
    """A local copy of the public source: its folder, and the paths asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                asked.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, file: File, content: bytes) -> None:
        path = self.root / file.source.repository / file.source.commit / str(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder)
    return folder


@pytest.fixture
def site(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "public").mkdir()
    site = Site(tmp_path / "public")
    monkeypatch.setattr(_registry, "BASE_URL", f"http://127.0.0.1:{site.server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(DATA_DIR, raising=False)
    yield site
    site.close()
    with warnings.catch_warnings():  # requests leaves the socket of a refused answer to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> File:
    return register(monkeypatch, NAME, CONTENT)


def register(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> File:
    entry = File(Source("owner/data", "c0ffee", "MIT"), f"files/{name}", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(FILES, name, entry)
    return entry


def test_downloaded_once_then_cached(site: Site, cache: Path, file: File) -> None:
    site.put(file, CONTENT)
    assert fetch(NAME) == cache / NAME
    assert (cache / NAME).read_bytes() == CONTENT
    assert len(site.asked) == 1
    assert site.asked == [f"/owner/data/c0ffee/files/{NAME}"]
    site.close()
    assert fetch(NAME) == cache / NAME


def test_local_folder_comes_first_and_is_only_read(
    site: Site, cache: Path, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put(file, CONTENT)
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv(DATA_DIR, str(mine))
    assert fetch(NAME) == cache / NAME  # absent there: downloaded to the cache, not into the user's folder
    assert not list(mine.iterdir())
    (mine / "demo").mkdir()
    (mine / NAME).write_bytes(CONTENT)
    assert fetch(NAME) == mine / NAME
    assert len(site.asked) == 1


@pytest.mark.parametrize("place", ["mine", "cache"])
def test_a_file_that_differs_is_refused_and_kept(
    site: Site, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    site.put(file, CONTENT)
    wrong = tmp_path / place / NAME
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(CONTENT + b"!")
    if place == "mine":
        monkeypatch.setenv(DATA_DIR, str(tmp_path / place))
    with pytest.raises(InputError) as caught:
        fetch(NAME)
    for part in (str(wrong), file.sha256, hashlib.sha256(CONTENT + b"!").hexdigest(), "delete or move"):
        assert part in str(caught.value)
    assert wrong.read_bytes() == CONTENT + b"!"
    assert site.asked == []


def test_a_download_that_differs_is_refused_and_not_kept(site: Site, cache: Path, file: File) -> None:
    site.put(file, CONTENT[:-1])
    with pytest.raises(InputError, match=file.sha256) as caught:
        fetch(NAME)
    assert hashlib.sha256(CONTENT[:-1]).hexdigest() in str(caught.value)
    assert str(file.url) in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("broken", ["no server", "no file"])
def test_without_the_source_the_error_says_what_was_tried(site: Site, cache: Path, file: File, broken: str) -> None:
    if broken == "no server":
        site.close()
    with pytest.raises(InputError) as caught:
        fetch(NAME)
    for part in (NAME, f"{DATA_DIR} (not set)", str(cache), str(file.url), f"set {DATA_DIR} to a folder"):
        assert part in str(caught.value)


def test_a_converted_file_is_not_asked_of_the_network(site: Site) -> None:
    with pytest.raises(InputError, match=f"rasbt/mnist-pngs.*set {DATA_DIR}"):
        fetch("mnist/mnist_train.npz")
    assert site.asked == []


def test_unknown_name_and_missing_folder(
    site: Site, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"'demo/other'.*larry_subset/larry_781.h5ad"):
        fetch("demo/other")
    monkeypatch.setenv(DATA_DIR, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=f"{DATA_DIR}=.*nowhere"):
        fetch(NAME)


def test_every_address_names_a_commit_and_every_hash_is_one() -> None:
    for name, entry in FILES.items():
        assert len(entry.source.commit) == 40
        assert len(bytes.fromhex(entry.sha256)) == 32
        expected = f"https://raw.githubusercontent.com/{entry.source.repository}/{entry.source.commit}/{entry.path}"
        assert entry.url == (expected if entry.path else None), name
    assert len({entry.sha256 for entry in FILES.values()}) == len(FILES) == 37


@pytest.fixture
def small_cite(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], np.ndarray]:
    """Two fits of a few cells, at the names and columns of the real ones."""
    generator = np.random.default_rng(0)
    blocks = {}
    for fit in (50, 100):
        for day, n in ((2, 3), (3, 5), (4, 4), (7, 2)):
            blocks[fit, day] = generator.normal(size=(n, fit)).astype(np.float32)
            buffer = io.BytesIO()
            np.save(buffer, blocks[fit, day])
            name = f"cite/full_cite_pcas_{fit}_day_{day}.npy"
            site.put(register(monkeypatch, name, buffer.getvalue()), buffer.getvalue())
    return blocks


@pytest.mark.parametrize(("n_pcs", "fit"), [(1, 50), (5, 50), (50, 50), (51, 100), (100, 100)])
def test_cite_takes_the_first_columns_of_the_smallest_fit(
    site: Site, small_cite: dict[tuple[int, int], np.ndarray], n_pcs: int, fit: int
) -> None:
    course = cite(n_pcs)
    expected = np.concatenate([small_cite[fit, day][:, :n_pcs] for day in (2, 3, 4, 7)])
    np.testing.assert_array_equal(course.obsm["X_pca"], expected)
    assert course.obsm["X_pca"].dtype == np.float32
    assert course.obs["day"].tolist() == [2] * 3 + [3] * 5 + [4] * 4 + [7] * 2
    assert course.obs_names.is_unique
    assert course.obs_names[3] == "day3_0"
    assert all(f"_{fit}_day_" in path for path in site.asked)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_cite_round_trip(small_cite: object, tmp_path: Path, suffix: str) -> None:
    written = cite(7)
    getattr(written, f"write_{suffix}")(tmp_path / f"cite.{suffix}")
    read = getattr(anndata, f"read_{suffix}")(tmp_path / f"cite.{suffix}")
    np.testing.assert_array_equal(read.obsm["X_pca"], written.obsm["X_pca"])
    assert read.obs.equals(written.obs)
    assert read.shape == (14, 0)


def test_cite_refuses_a_pickle_inside_an_array(site: Site, small_cite: object, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    name = "cite/full_cite_pcas_50_day_2.npy"
    site.put(register(monkeypatch, name, buffer.getvalue()), buffer.getvalue())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        cite(5)


@pytest.mark.parametrize("n_pcs", [0, 101, 5.0, True])
def test_cite_refuses_other_sizes(n_pcs: Any) -> None:
    with pytest.raises(InputError, match="n_pcs"):
        cite(n_pcs)
