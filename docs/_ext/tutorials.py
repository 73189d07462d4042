"""The notebooks of ``tutorials/`` as pages: copied beside them, and executed at every build.

Two of them need real data. Where a data set can neither be read nor downloaded, its notebook is shown with the outputs
stored in the repository, under a note that says so; nothing pretends to have run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sphinx.util import logging

logger = logging.getLogger(__name__)

NEEDS = {
    "02_cite_leave_one_out.ipynb": "cite/full_cite_pcas_50_day_2.npy",
    "03_larry_fates.ipynb": "larry_subset/larry_781.h5ad",
}
NOTE = (
    ":::{note}\n"
    "This copy of the page was built where the data could not be had, so the notebook was not run for it. The outputs "
    "below are those of its last run, stored in the repository.\n"
    ":::"
)


def prepare(source: Path, target: Path) -> list[str]:
    """Copy the notebooks of ``source`` to ``target``; returns the patterns of those not to execute."""
    target.mkdir(exist_ok=True)
    skipped = []
    for path in sorted(source.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](../")  # links as seen from the copy
        if path.name in NEEDS and not _available(NEEDS[path.name]):
            skipped.append(f"tutorials/{path.name}")
            text = _with_note(json.loads(text))
            logger.info("%s is not executed: its data cannot be had here", path.name)
        copy = target / path.name
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")
    return skipped


def _available(name: str) -> bool:
    from thalweg.datasets import fetch
    from thalweg.errors import InputError

    try:
        fetch(name)
    except InputError:
        return False
    return True


def _with_note(notebook: dict[str, Any]) -> str:
    cell = {"cell_type": "markdown", "id": "not-executed", "metadata": {}, "source": NOTE}
    notebook["cells"].insert(1, cell)
    return json.dumps(notebook, indent=1, ensure_ascii=False)
