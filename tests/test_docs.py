"""The documentation: its code runs, its links lead somewhere, its names exist, and no public name is missing."""

from __future__ import annotations

import base64
import json
import pkgutil
import re
from functools import reduce
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc  # noqa: F401, loaded before warnings count, as in a session
import torch

import thalweg as tw

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not {"_build", "generated"} & set(p.parts))
PROSE = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tutorials/README.md"))]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
BLOCK = re.compile(r"^```python(.*?)\n(.*?)^```", flags=re.M | re.S)
MODULES = ("tl", "pp", "pl", "get", "datasets", "metrics", "training")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Names


def _listed() -> set[str]:
    """What the API pages list under autosummary, by full name."""
    names = set()
    for page in (DOCS / "api").glob("*.md"):
        for module, body in re.findall(
            r"```\{eval-rst\}\n(?:\.\. currentmodule:: (\S+)\n)?(.*?)```", page.read_text(), re.S
        ):
            entries = re.findall(r"^   (\w[\w.]*)$", body, flags=re.M)
            names |= {f"{module}.{entry}" if module else entry for entry in entries}
    return names


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_api_page_and_every_page_a_name(module):
    public = {f"thalweg.{module}.{name}" for name in getattr(tw, module).__all__}
    assert {name for name in _listed() if name.startswith(f"thalweg.{module}.")} == public


INNER = re.compile(r"\._|\.(exact|entropic)\.(?!solver)")  # parts of a solver, which its page describes


def test_every_module_of_the_core_has_an_api_page():
    found = pkgutil.walk_packages(tw.core.__path__, "thalweg.core.")
    modules = {info.name for info in found if not info.ispkg and not INNER.search(info.name)}
    assert modules <= _listed()


def _resolves(dotted: str) -> bool:
    try:
        reduce(getattr, dotted.split("."), tw)
    except AttributeError:
        return False
    return True


@pytest.mark.parametrize("page", PROSE, ids=_name)
def test_every_name_of_the_package_in_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    dotted = r"tw\.((?:tl|pp|pl|get|datasets|metrics|errors|core|training|settings)\.\w[\w.]*)"
    found = set(re.findall(rf"(?<!\w){dotted}", text))
    assert not sorted(name for name in found if not _resolves(name.rstrip(".")))


# Links


def _targets(text: str) -> set[str]:
    """Relative files that Markdown text links to or shows."""
    prose = re.sub(r"^```(?!\{(?:image|toctree|include)).*?^```", "", text, flags=re.M | re.S)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose)
    directives = re.findall(r"^```\{(?:image|include|literalinclude)\} (\S+)", text, flags=re.M)
    return {link for link in (*links, *directives) if "://" not in link}


@pytest.mark.parametrize("page", [*PROSE, *NOTEBOOKS], ids=_name)
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    for target in _targets(text):
        path = (page.parent / target).resolve()
        copied = ROOT / path.relative_to(DOCS) if path.is_relative_to(DOCS / "tutorials") else path
        assert path.exists() or copied.exists(), f"{_name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_tables_of_contents_name_pages(page):
    for body in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        for entry in filter(None, (line for line in body.splitlines() if not line.startswith(":"))):
            places = [page.parent / f"{entry}.md", ROOT / "tutorials" / f"{entry}.ipynb"]
            assert any(place.exists() for place in places), f"{_name(page)} lists {entry}"


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for body in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
            listed |= {(page.parent / f"{line}.md").resolve() for line in body.splitlines() if line and line[0] != ":"}
    assert not [_name(page) for page in PAGES if page not in listed]


# Code


def test_the_worked_example_of_an_extension_runs_and_learns(tmp_path, monkeypatch):
    own, back, competitor, loss = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), flags=re.S)
    assert sum(bool(line.strip()) for line in own.splitlines()) <= 30
    assert sum(bool(line.strip()) for line in competitor.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in (own, back, competitor, loss):
        exec(compile(code, "docs/extending.md", "exec"), names)
    assert set(names["scores"]["method"]) >= {"otcfm", "nearest", "mean_shift", "floor"}
    assert "velocity_X_pca" in names["again"].obsm
    loss = names["result"].history["huber"]
    assert loss[-1] < 0.6 * loss[0]
    # the path's velocity is its derivative
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    x0, x1 = torch.zeros(5, 2, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64)
    h, path = 1e-6, names["path"]
    ahead, back = (path.at(x0, x1, t + s, x0).x_t for s in (h, -h))
    torch.testing.assert_close(path.at(x0, x1, t, x0).u_t, (ahead - back) / (2 * h), atol=1e-6, rtol=0)


def test_code_that_is_not_run_says_why():
    for page in PROSE:
        for info, _ in BLOCK.findall(page.read_text(encoding="utf-8")):
            assert not info or re.fullmatch(r" no-run: \S.*", info), f"{_name(page)}: ```python{info}"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A small course, its files beside the reader, and short fits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    defaults = tw.tl.FitConfig.__init__.__defaults__
    assert 1000 in defaults  # max_steps
    short = tuple(20 if value == 1000 else value for value in defaults)
    monkeypatch.setattr(tw.tl.FitConfig.__init__, "__defaults__", short)
    adata = tw.datasets.simulated(200, n_genes=300, n_pcs=20, n_futures=0, rng=0)
    adata.obs["day"] = adata.obs["time"].to_numpy() + 1
    adata.obs["treatment"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "treated", "control"))
    yield adata
    plt.close("all")


def _run(page: Path, names: dict[str, object]) -> None:
    blocks = [code for info, code in BLOCK.findall(page.read_text(encoding="utf-8")) if not info]
    assert blocks
    for code in blocks:
        exec(compile(code, _name(page), "exec"), names)


def test_the_ten_lines_of_the_readme(course):
    course.write_h5ad("course.h5ad")
    names: dict[str, object] = {}
    _run(ROOT / "README.md", names)
    again = anndata.read_h5ad("course_fitted.h5ad")
    np.testing.assert_array_equal(tw.tl.interpolate(again, 3.0).obsm["X_pca"], names["day3"].obsm["X_pca"])
    assert {"usb", "otcfm", "floor"} <= set(names["scores"]["method"])


def test_the_five_minute_start(course):
    course.obs["day"] = [f"day {t:g}" for t in course.obs["day"]]
    course.write_h5ad("course.h5ad")
    names: dict[str, object] = {}
    _run(DOCS / "start.md", names)
    fitted = anndata.read_h5ad("course_fitted.h5ad")
    assert set(fitted.obs["day"]) == {"day 1", "day 2", "day 3", "day 4.5", "day 6"}  # as it was
    assert tw.tl.interpolate(fitted, 3.5).obs["treatment"].nunique() == 2
    assert set(names["unseen"].obs["source"]) <= set(names["tw"].datasets.simulated(rng=0).obs_names)


def test_the_guide_from_counts(course):
    counts = np.random.default_rng(0).poisson(np.expm1(course.X.clip(0)))
    adata = anndata.AnnData(counts.astype(np.float32), obs=course.obs[["day"]])
    adata.write_h5ad("counts.h5ad")
    names: dict[str, object] = {}
    _run(DOCS / "guide" / "counts_to_fit.md", names)
    assert names["adata"].obsm["X_pca"].shape[1] == 30
    assert len(tw.get.intervals(names["adata"])) == 4
    np.testing.assert_array_equal(names["adata"].layers["counts"], counts[:, (counts > 0).sum(0) >= 5])


@pytest.mark.parametrize("page", ["gpu", "replicates", "reproducibility", "snapshots", "terminal_states", "trust"])
def test_the_short_guides(course, page):
    course.var_names = ["Gata1", *course.var_names[1:]]
    course.obs["cell_type"] = course.obs["branch"]
    course.obs["mouse"] = [f"m{i % 3}" for i in range(course.n_obs)]
    _run(DOCS / "guide" / f"{page}.md", {"tw": tw, "np": np, "adata": course})


# CellRank and what it brings use what others deprecate
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_guide_to_cellrank(course):
    pytest.importorskip("cellrank")
    rng = np.random.default_rng(0)
    course.obs["cell_type"] = course.obs["branch"].where(rng.random(course.n_obs) > 0.3)
    names: dict[str, object] = {"tw": tw, "adata": course}
    _run(DOCS / "guide" / "cellrank.md", names)
    last = course.obs["day"] == course.obs["day"].max()
    assert course.obs["cell_type"][last].isna().any()
    fates, own = names["fates"], course.obsm["fate_cell_type"]
    np.testing.assert_allclose(fates.sum(axis=1), 1, atol=1e-6)
    assert list(fates.columns) == list(own.columns)
    assert np.corrcoef(fates[~last].to_numpy().ravel(), own[~last].to_numpy().ravel())[0, 1] > 0.5


def test_the_guide_to_experiments(course):
    names: dict[str, object] = {}
    _run(DOCS / "guide" / "experiments.md", names)
    adata, late, first = names["adata"], names["late"], names["first"]
    assert set(tw.get.compare_df(adata)["arm"]) == {"knock-out"}
    assert tw.get.compare_df(adata)["p"].notna().all()
    assert not adata.obsm["fate_control"][first].equals(adata.obsm["fate_knock_out"][first])
    assert set(tw.tl.interpolate(late, 1.5).obs["condition"]) == {"control", "knock-out"}


def test_the_guide_to_new_cells(course):
    names: dict[str, object] = {}
    _run(DOCS / "guide" / "new_cells.md", names)
    new, later = names["new"], names["later"]
    assert 0 < new.obs["outside"].mean() < 0.1
    assert set(later.obs["source"]) <= set(names["inside"].obs_names)


# Notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_notebooks_are_stored_as_run_from_a_clean_kernel(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    outputs = [output for c in cells for output in c["outputs"]]
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures
    assert all(len(base64.b64decode("".join(p))) < 500_000 for p in pictures)
    text = json.dumps([{k: v for k, v in o.items() if k != "data"} for o in outputs])
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert "Warning" not in text
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_there_are_the_five_tutorials():
    assert [p.stem[:2] for p in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
