"""The film: its frames, what they show, and the files."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from matplotlib.colors import to_hex
from PIL import Image

import thalweg as tw
from thalweg.errors import InputError


@pytest.fixture
def make():
    """Films that are looked at frame by frame; matplotlib warns of one that is dropped before it was drawn."""

    def animate(*args, **options):
        film = tw.pl.animation(*args, **options)
        film._draw_was_started = True
        return film

    return animate


def moving(film):
    """The dots of the cells, which are drawn on top."""
    return max(film._fig.axes[0].collections, key=lambda c: c.get_zorder())


def test_cells_are_where_their_trajectories_are(make, cells, paths):
    film = make(cells, paths, n_frames=13)
    assert len(list(film.new_frame_seq())) == 13
    for frame, time in ((0, 0.0), (5, 1.25), (12, 3.0)):
        film._draw_frame(frame)
        angle = np.array([0.0, 2.0, 4.0])
        lo, hi = (np.floor(time * 2) / 2, np.ceil(time * 2) / 2)
        share = 0 if hi == lo else (time - lo) / (hi - lo)
        a, b = (np.stack([np.cos(t / 3 + angle), np.sin(t / 3 + angle)], axis=1) for t in (lo, hi))
        np.testing.assert_allclose(moving(film).get_offsets(), (1 - share) * a + share * b, atol=1e-12)
        assert film._fig.axes[0].get_title() == f"time {time:.2f}"


def test_real_cells_of_the_nearest_time_are_dark(make, cells, paths):
    film = make(cells, paths, n_frames=4)
    (now,) = [c for c in film._fig.axes[0].collections if c.get_zorder() == 1]
    for frame, time in ((0, 0.0), (1, 1.0), (3, 3.0)):
        film._draw_frame(frame)
        np.testing.assert_array_equal(now.get_offsets(), cells.obsm["X_pca"][cells.obs["time"] == time, :2])


def test_a_cell_that_has_not_started_is_not_drawn(make, cells, paths):
    late = paths[~((paths.obs["trajectory"] == "p1") & (paths.obs["time"] < 1.4)).to_numpy()].copy()
    film = make(cells, late, n_frames=4)
    film._draw_frame(1)
    hidden = np.isnan(np.ma.filled(moving(film).get_offsets(), np.nan)).any(1)
    assert hidden.tolist() == [False, True, False]
    film._draw_frame(2)
    assert np.isfinite(np.asarray(moving(film).get_offsets())).all()


def test_categories_colour_the_cells(make, cells, paths):
    film = make(cells, paths, color="kind", n_frames=2)
    assert {to_hex(c) for c in moving(film).get_facecolors()} == {"#112233"}  # all start as stem cells
    film._draw_frame(0)


def test_gif_has_every_frame(make, cells, paths, tmp_path):
    film = make(cells, paths, n_frames=5)
    written = tw.pl.write_animation(film, tmp_path / "film.gif", dpi=40)
    with Image.open(written) as image:
        assert image.n_frames == 5
        assert image.size == (140, 104)


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="no ffmpeg on the PATH")
def test_mp4_is_written_where_there_is_ffmpeg(make, cells, paths, tmp_path):
    written = tw.pl.write_animation(make(cells, paths, n_frames=3), tmp_path / "film.mp4", dpi=40)
    assert written.read_bytes()[4:8] == b"ftyp"


def test_other_endings_and_missing_ffmpeg_are_said(make, cells, paths, tmp_path, monkeypatch):
    film = make(cells, paths, n_frames=2)
    film._draw_frame(0)
    with pytest.raises(InputError, match=r"must end in \.gif or \.mp4"):
        tw.pl.write_animation(film, tmp_path / "film.avi")
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(InputError, match=r"'film\.mp4' needs ffmpeg.*write a \.gif"):
        tw.pl.write_animation(film, tmp_path / "film.mp4")
    with pytest.raises(InputError, match="n_frames must be 2 or more"):
        tw.pl.animation(cells, paths, n_frames=1)
