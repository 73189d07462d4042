"""Run the code of docs/gallery.md and keep its pictures: ``python docs/scripts/figures.py``.

The blocks of the page run in order, in one namespace. A block that is followed by a picture makes that picture: the
figure it leaves is written, in a palette of 256 colours to keep the file small, or it writes the file itself (the
film, then brought to 32 colours). Nothing on the page is made in any other way, so the code shown is the code that ran.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "gallery.md"
FOLDER = DOCS / "_static" / "gallery"
LARGEST = 150_000  # bytes of a picture
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```\n(?:\n!\[[^\]]*\]\(_static/gallery/([\w.]+)\))?", flags=re.S | re.M)


class Example(NamedTuple):
    """A block of code, its line on the page, and the name of the picture it makes, empty without one."""

    code: str
    line: int
    picture: str


def examples(page: Path = PAGE) -> Iterator[Example]:
    """Blocks of the page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield Example(match[1], text.count("\n", 0, match.start()) + 1, match[2] or "")


def run(folder: Path = FOLDER) -> list[Path]:
    """Run every block and write its picture into ``folder``; returns the pictures."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    import thalweg as tw

    tw.settings.progress = False
    warnings.filterwarnings("error", module="thalweg")
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, object] = {}
    written = []
    with contextlib.chdir(folder):
        for example in examples():
            exec(compile("\n" * example.line + example.code, str(PAGE), "exec"), names)
            if example.picture.endswith(".png"):
                _keep(plt.gcf(), Path(example.picture))
            elif example.picture:
                _shrink(Path(example.picture))
            if example.picture:
                written.append(folder / example.picture)
                print(f"{example.picture}: {os.path.getsize(example.picture) / 1000:.0f} kB")
            plt.close("all")
    large = [path.name for path in written if path.stat().st_size > LARGEST]
    if large:
        raise SystemExit(f"larger than {LARGEST} bytes: {large}")
    return written


def _keep(figure: object, path: Path) -> None:
    from PIL import Image

    figure.savefig(path, dpi=150)  # type: ignore[attr-defined]
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def _shrink(path: Path) -> None:
    """Write a film again with 32 colours, which are those of its middle frame, near-white ones made white."""
    from PIL import Image, ImageSequence

    with Image.open(path) as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        duration = film.info["duration"]
    colors = frames[len(frames) // 2].quantize(32, dither=Image.Dither.NONE)
    palette = colors.getpalette()
    colors.putpalette([255 if min(palette[i - i % 3 :][:3]) >= 245 else value for i, value in enumerate(palette)])
    small = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    small[0].save(path, save_all=True, append_images=small[1:], duration=duration, loop=0, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures")
    run(parser.parse_args().out.resolve())
