"""Run the tutorials from a clean kernel and store their outputs: ``python docs/scripts/run_tutorials.py [name ...]``.

What a reader of the repository sees is then what the code gives. Two need the CITE and LARRY data (`THALWEG_DATA_DIR`,
or a network).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[2] / "tutorials"
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def run(path: Path) -> float:
    """Execute a notebook in place; returns the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # pictures, whatever the shell asks for
    start = time.perf_counter()
    where = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        for output in cell.get("outputs", []):
            output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
    nbformat.write(notebook, path)
    return time.perf_counter() - start


def main() -> None:
    """Run the notebooks named on the command line, or all."""
    wanted = sys.argv[1:]
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if not wanted or any(name in path.name for name in wanted):
            print(f"{path.name}: {run(path):.0f} s")


if __name__ == "__main__":
    main()
