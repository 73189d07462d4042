"""The gallery shows every plot, and holds the pictures it names."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import thalweg as tw

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("figures", DOCS / "scripts" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_plot_has_a_picture(figures):
    shown = [e for e in figures.examples() if e.picture]
    used = {name for e in shown for name in re.findall(r"tw\.pl\.(\w+)\(", e.code)}
    assert used == set(tw.pl.__all__)


def test_every_block_is_found_and_its_picture_is_small(figures):
    page = (DOCS / "gallery.md").read_text()
    found = list(figures.examples())
    assert len(found) == page.count("```python")
    assert [e.picture for e in found if e.picture] == re.findall(r"\(_static/gallery/([\w.]+)\)", page)
    for example in found:
        assert page.splitlines()[example.line] == example.code.splitlines()[0]
        assert not example.picture or 0 < (figures.FOLDER / example.picture).stat().st_size <= figures.LARGEST


@pytest.mark.slow
def test_the_pictures_can_be_made_again(figures, tmp_path):
    assert len(figures.run(tmp_path)) == len([e for e in figures.examples() if e.picture])
