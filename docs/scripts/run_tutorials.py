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
from nbformat import NotebookNode

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
        if cell.cell_type == "code":
            cell.outputs = [tidy(output) for output in merged(cell.outputs)]
    nbformat.write(notebook, path)
    return time.perf_counter() - start


def merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Lines of one stream that follow each other as one output."""
    out: list[NotebookNode] = []
    for output in outputs:
        if out and output.output_type == "stream" == out[-1].output_type and output.name == out[-1].name:
            out[-1].text += output.text
        else:
            out.append(output)
    return out


def tidy(output: NotebookNode) -> NotebookNode:
    """Without metadata, which differ between runs."""
    if "metadata" in output:
        output.metadata = {}
    return output


def main() -> None:
    """Run the notebooks named on the command line, or all."""
    wanted = sys.argv[1:]
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if not wanted or any(name in path.name for name in wanted):
            print(f"{path.name}: {run(path):.0f} s")


if __name__ == "__main__":
    main()
