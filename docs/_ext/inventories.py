"""Inventories of other packages for intersphinx, made from the few names in ``inventories.toml``."""

from __future__ import annotations

import tomllib
import zlib
from pathlib import Path

HEADER = """\
# Sphinx inventory version 2
# Project: {}
# Version:
# The remainder of this file is compressed using zlib.
"""


def mapping(table: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """Write an inventory into ``folder`` for each section of ``table``; returns ``intersphinx_mapping``."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for project, section in tomllib.loads(table.read_text(encoding="utf-8")).items():
        url = section.pop("url")
        lines = [_line(entry, page) for page, entries in section.items() for entry in entries]
        path = folder / f"{project}.inv"
        path.write_bytes(HEADER.format(project).encode() + zlib.compress("".join(lines).encode()))
        out[project] = (url, str(path))
    return out


def _line(entry: str, page: str) -> str:
    public, _, private = entry.partition(" = ")
    return f"{private or public} py:class 1 {page.replace('$', public)} -\n"
