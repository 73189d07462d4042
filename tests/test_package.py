"""The laws of the package: light import, one direction of imports, one shape of API, nothing unsafe."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg as tw
from thalweg._device import resolve_device

SRC = Path(tw.__file__).parent
FILES = sorted(SRC.rglob("*.py"))

# room -> rooms it may import (besides itself and the shared modules at the top)
ALLOWED = {
    "core": set(),
    "training": set(),
    "data": set(),
    "flows": {"core", "training", "data"},
    "metrics": {"core"},
    "datasets": {"data"},
    "get": {"data"},
    "pp": {"data", "flows"},
    "tl": {"core", "data", "flows"},
    "pl": {"data", "get"},
    "cli": {"tl", "pp", "pl", "get", "datasets", "metrics"},
}
# within the core, the solvers and what runs a field know nothing of what is built on them
BENEATH = {"core.ot": {"core.ot", "core.sampling"}, "core.dynamics": {"core.dynamics", "core.losses", "core.paths"}}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, type-checking blocks included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module in ("thalweg", "thalweg.core"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n for n in names if n.startswith("thalweg.")}


@pytest.mark.parametrize("path", [f for f in FILES if f.parent != SRC], ids=lambda f: str(f.relative_to(SRC)))
def test_imports_point_one_way(path):
    room = path.relative_to(SRC).parts[0]
    rooms = {name.split(".")[1] for name in imported(path)} & ALLOWED.keys()
    assert rooms <= ALLOWED[room] | {room}


CALLERS = {"_assess", "_map_query", "_next_time"}
VERBS = sorted(path for path in (SRC / "tl").glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", VERBS, ids=lambda f: f.stem)
def test_a_verb_has_a_file_of_its_own_and_imports_no_other(path):
    """But those that judge the others, and the one that brings a fit to new cells, which call them."""
    assert path.stem.removeprefix("_") in tw.tl.__all__
    tools = {name.split(".")[2] for name in imported(path) if name.startswith("thalweg.tl.")}
    judged = {verb.stem for verb in VERBS} - CALLERS if path.stem in CALLERS else set()
    assert tools <= {"_comparison", "_genes", "_fates", "_stored", "_transitions", "_trust"} | judged, tools


def test_helpers_of_verbs_import_no_verb():
    for path in (SRC / "tl").glob("*/*.py"):
        tools = {name.split(".")[2] for name in imported(path) if name.startswith("thalweg.tl.")}
        assert tools <= {path.parent.name}, path


def test_the_solvers_know_nothing_of_the_couplings_above_them():
    for room, below in BENEATH.items():
        for path in (SRC / room.replace(".", "/")).rglob("*.py"):
            core = {name.removeprefix("thalweg.") for name in imported(path) if name.startswith("thalweg.core.")}
            assert all(any(name == b or name.startswith(f"{b}.") for b in below) for name in core), (path, core)


def test_flows_know_cells_and_no_anndata():
    """What lies in an AnnData is read in one room; what is learned and run there knows arrays."""
    for path in (SRC / "flows").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "AnnData" not in names, path


def test_reading_and_running_a_stored_fit_does_not_load_the_trainer(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    code = (
        "import sys, anndata, thalweg as tw; tw.settings.verbosity = 'error'\n"
        f"adata = anndata.read_h5ad({str(tmp_path / 'fitted.h5ad')!r})\n"
        "tw.tl.velocity(adata); tw.tl.interpolate(adata, 0.5); tw.tl.trajectories(adata, 3, n_times=3)\n"
        "loaded = {'thalweg.flows.fitting', 'thalweg.training.loop', 'thalweg.tl._fit'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and decorators."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    signature = node.body[0].lineno - node.lineno
    return signature + (body[-1].end_lineno - body[0].lineno + 1 if body else 0)


def test_files_and_functions_stay_small():
    files = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {str(path): n for path, n in files.items() if n > 350} == {}
    sizes = sorted(
        lines_of(node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert sizes[len(sizes) // 2] <= 7
    assert sizes[int(0.99 * len(sizes))] <= 45
    assert sizes[-1] <= 60


def test_modules_do_not_import_in_a_circle():
    graph = {}
    for path in FILES:
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts[-1] != "__init__":
            graph[".".join(("thalweg", *parts))] = imported(path)
    seen, active = set(), []

    def visit(name):
        assert name not in active, " -> ".join([*active, name])
        if name in seen or name not in graph:
            return
        active.append(name)
        for other in graph[name]:
            visit(other)
        active.pop()
        seen.add(name)

    for name in graph:
        visit(name)


def test_import_is_light():
    code = (
        "import sys, time; t = time.perf_counter(); import thalweg; s = time.perf_counter() - t;"
        "heavy = {'torch', 'scanpy', 'torchdyn', 'matplotlib', 'ot', 'anndata'} & set(sys.modules); print(s, heavy); "
        "assert not heavy; assert s < 0.5"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_submodule_is_reachable():
    for name in tw.__all__:
        assert getattr(tw, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tw.nonsense


def functions(module):
    return [(n, f) for n in module.__all__ if inspect.isfunction(f := getattr(module, n))]


@pytest.mark.parametrize(
    ("name", "function"), functions(tw.tl) + functions(tw.pp), ids=lambda v: v if isinstance(v, str) else ""
)
def test_tools_take_adata_first_and_few_positional(name, function):
    parameters = list(inspect.signature(function).parameters.values())
    assert parameters[0].name == "adata"
    assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) <= 3
    if "Sets the following fields" in function.__doc__:
        assert inspect.signature(function).parameters["copy"].default is False


PLOTS = [(name, function) for name, function in functions(tw.pl) if not name.startswith("write_")]


@pytest.mark.parametrize(("name", "function"), PLOTS, ids=lambda v: v if isinstance(v, str) else "")
def test_plots_take_ax_and_show_and_never_save(name, function):
    names = inspect.signature(function).parameters
    assert {"ax", "show"} <= names.keys()
    assert "save" not in names


@pytest.mark.parametrize("room", ["tl", "pp", "pl", "get", "metrics", "datasets"])
def test_public_functions_are_documented_and_typed(room):
    for name, function in functions(getattr(tw, room)):
        signature = inspect.signature(function)
        assert signature.return_annotation is not signature.empty, name
        for p in signature.parameters.values():
            assert p.annotation is not p.empty, f"{name}({p.name})"
            assert re.search(rf"\b{p.name}\b", function.__doc__), f"{name} does not document {p.name}"


UNSAFE = (
    r"\bpickle\b|\btorch\.load\(|allow_pickle=True|\beval\(|\bexec\(|"
    r"np\.random\.(seed|rand|randn|choice|normal)\(|\bmanual_seed_all\("
)


@pytest.mark.parametrize("path", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_nothing_runs_code_or_touches_global_generators(path):
    code = re.sub(r"model\.eval\(\)|net\.eval\(\)", "", path.read_text())
    assert not re.search(UNSAFE, code)
    assert not re.search(r"(?<!\.)torch\.manual_seed\(", code)


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_is_used_when_there_is_one(there, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert resolve_device("auto").type == ("cuda" if there else "cpu")
