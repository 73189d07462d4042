"""The command line: the same as the functions, errors on one line."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import thalweg as tw
from courses import make_course
from thalweg.cli import _commands, main
from thalweg.cli._results import Table, h5ad
from thalweg.cli._summary import summary

QUICK = ["max_steps=20", "batch_size=32", "width=8", "depth=2"]
DAYS = {"D0": 0.0, "D1": 1.0, "D3": 3.0}


@pytest.fixture
def path(tmp_path, course):
    course.write_h5ad(tmp_path / "course.h5ad")
    return tmp_path / "course.h5ad"


@pytest.fixture(scope="module")
def experiment():
    """Days in words; a day 0 without a label and two arms after it; two replicates; a rate and a type of each cell."""
    adata = make_course(n=60)
    day, odd = adata.obs["time"].to_numpy(), np.arange(adata.n_obs) % 2 == 1
    adata.obs["day"] = pd.Categorical([f"D{t:g}" for t in day])
    adata.obs["arm"] = pd.Categorical(np.where(odd, "ctrl", "KO"), categories=["ctrl", "KO"])
    adata.obs.loc[day == 0, "arm"] = np.nan
    adata.obs["replicate"] = np.where(np.arange(adata.n_obs) % 3 == 0, "r1", "r2")
    adata.obs["rate"] = 0.1 * odd
    adata.obs["type"] = pd.Categorical(np.where(adata.obsm["X_pca"][:, 1] > 0, "up", "down"))
    del adata.obs["time"]
    return adata


@pytest.fixture(scope="module")
def fitted(experiment, tmp_path_factory):
    """A file that the command has fitted, and the words it was given."""
    folder = tmp_path_factory.mktemp("fitted")
    experiment.write_h5ad(folder / "course.h5ad")
    words = ["--time-key", "day", "--time-map", "D0=0", "D1=1", "D3=3", "--condition-key", "arm", "--baseline", "NaN"]
    sizes = ["ctrl=D0=100", "ctrl=D1=150", "ctrl=D3=300", "KO=D0=100", "KO=D1=100", "KO=D3=100"]
    words += ["--replicate-key", "replicate", "--growth-key", "rate", "--population-size", *sizes, "--config", *QUICK]
    words += ["--device", "cpu", "--rng", "0"]
    assert main(["fit", str(folder / "course.h5ad"), *words, "--output", str(folder / "fitted.h5ad")]) == 0
    return folder / "fitted.h5ad"


def in_python(adata):
    """The same fit."""
    sizes = {"ctrl": {"D0": 100, "D1": 150, "D3": 300}, "KO": {"D0": 100, "D1": 100, "D3": 100}}
    config = tw.tl.FitConfig(max_steps=20, batch_size=32, width=8, depth=2)
    return tw.tl.fit(
        adata, "day", time_map=DAYS, condition_key="arm", baseline=float("nan"), replicate_key="replicate",
        growth_key="rate", population_size=sizes, config=config, device="cpu", rng=0, copy=True,
    )  # fmt: skip


def test_fit_is_the_fit_of_python(fitted, experiment):
    there, here = ad.read_h5ad(fitted).uns["thalweg"], in_python(experiment).uns["thalweg"]
    np.testing.assert_array_equal(there["weights"]["0"], here["weights"]["0"])
    assert there["config"]["max_steps"] == 20
    assert list(there["recipe"]["conditions"]) == ["KO", "ctrl"]
    assert list(there["recipe"]["baseline"]) == [""]  # cells without a label
    for name, value in here["recipe"].items():
        np.testing.assert_array_equal(there["recipe"][name], value, err_msg=name)
    np.testing.assert_array_equal(there["population_sizes"]["sizes"], here["population_sizes"]["sizes"])


def test_interpolate_writes_the_predicted_cells(fitted, tmp_path, capsys):
    out = tmp_path / "day2.h5ad"
    words = ["--time", "2", "--both-ends", "--prediction", "sample", "--rng", "1", "--device", "cpu"]
    assert main(["interpolate", str(fitted), *words, "--output", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    here = tw.tl.interpolate(ad.read_h5ad(fitted), 2.0, both_ends=True, prediction="sample", rng=1, device="cpu")
    there = ad.read_h5ad(out)
    np.testing.assert_array_equal(there.obsm["X_pca"], here.obsm["X_pca"])
    assert set(there.obs["day"]) == {2.0}


def test_velocity_writes_into_the_file(fitted, tmp_path):
    out = tmp_path / "velocity.h5ad"
    assert main(["velocity", str(fitted), "--kind", "flow", "--device", "cpu", "--output", str(out)]) == 0
    here, there = ad.read_h5ad(fitted), ad.read_h5ad(out)
    tw.tl.velocity(here, kind="flow", device="cpu")
    np.testing.assert_array_equal(there.obsm["velocity_X_pca"], here.obsm["velocity_X_pca"])


def test_fate_writes_the_file_and_the_table(fitted, tmp_path):
    out, csv = tmp_path / "fate.h5ad", tmp_path / "fate.csv"
    words = ["--groupby", "type", "--condition", "KO", "--key-added", "end", "--terminal", "up", "down"]
    words += ["--n-neighbors", "5", "--rng", "0", "--device", "cpu"]
    assert main(["fate", str(fitted), *words, "--output", str(out), "--csv", str(csv)]) == 0
    here, there = ad.read_h5ad(fitted), ad.read_h5ad(out)
    options = {"condition": "KO", "key_added": "end", "terminal": ["up", "down"], "n_neighbors": 5}
    tw.tl.fate(here, "type", rng=0, device="cpu", **options)
    np.testing.assert_array_equal(there.obsm["end"], here.obsm["end"])
    table = tw.get.fate_df(here, "type", key="end")
    np.testing.assert_allclose(pd.read_csv(csv)["probability"], table["probability"])


def test_compare_writes_its_tables(fitted, tmp_path):
    out, files = tmp_path / "compared.h5ad", {name: tmp_path / f"{name}.csv" for name in ("fates", "composition")}
    words = ["--condition-key", "arm", "--groupby", "type", "--replicate-key", "replicate", "--reference", "ctrl"]
    words += ["--rng", "0", "--device", "cpu", "--output", str(out)]
    words += [word for name, file in files.items() for word in (f"--{name}-csv", str(file))]
    assert main(["compare", str(fitted), *words]) == 0
    compared = ad.read_h5ad(out)
    assert set(pd.read_csv(files["fates"])["arm"]) == {"KO"}
    for name, file in files.items():
        table = tw.get.compare_df(compared, name)
        np.testing.assert_allclose(pd.read_csv(file)["difference"], table["difference"])


def test_a_command_may_write_several_tables(fitted, tmp_path, monkeypatch):
    tables = [Table(f"{name}-csv", "fate_df", {"level": level}) for name, level in (("half", 0.5), ("all", 0.99))]
    monkeypatch.setitem(_commands.COMMANDS, "fate", _commands.Command("fate", "write fates", h5ad(*tables)))
    words = ["--groupby", "type", "--n-neighbors", "5", "--device", "cpu", "--output", str(tmp_path / "fate.h5ad")]
    files = {name: tmp_path / f"{name}.csv" for name in ("half", "all")}
    words += ["--half-csv", str(files["half"]), "--all-csv", str(files["all"])]
    assert main(["fate", str(fitted), *words]) == 0
    half, everything = (pd.read_csv(file)["upper"].sum() for file in files.values())
    assert half < everything


def test_assess_writes_the_verdict_and_its_evidence(experiment, tmp_path):
    source, csv = tmp_path / "course.h5ad", tmp_path / "evidence.csv"
    experiment.write_h5ad(source)
    words = ["--time-key", "day", "--time-map", "D0=0", "D1=1", "D3=3", "--condition-key", "arm", "--baseline", "NaN"]
    words += ["--methods", "otcfm", "icfm", "--n-cells", "30", "--key-added", "a", "--config", *QUICK]
    assert main(["assess", str(source), *words, "--output", str(source), "--csv", str(csv)]) == 0
    found = ad.read_h5ad(source).uns["a"]
    assert list(found["methods"]) == ["otcfm", "icfm"]
    assert list(pd.read_csv(csv)["check"]) == list(found["evidence"]["check"])


def test_report_takes_the_options_of_a_fit(experiment, tmp_path, capsys):
    source, page = tmp_path / "course.h5ad", tmp_path / "report.html"
    experiment.write_h5ad(source)
    words = ["--time-key", "day", "--time-map", "D0=0", "D1=1", "D3=3", "--condition-key", "arm", "--baseline", "NaN"]
    words += ["--replicate-key", "replicate", "--growth-key", "rate", "--n-cells", "30", "--config", *QUICK]
    assert main(["report", str(source), *words, "--key-added", "mine", "--output", str(page)]) == 0
    assert "verdict: " in capsys.readouterr().out
    assert "replicates" in page.read_text()


def test_leave_one_out_prints_the_table_and_writes_both_files(path, tmp_path, capsys):
    csv, figure = tmp_path / "scores.csv", tmp_path / "scores.svg"
    words = ["--time-key", "time", "--methods", "icfm", "--n-seeds", "1", "--times", "1", "--config", *QUICK]
    assert main(["leave-one-out", str(path), *words, "--csv", str(csv), "--figure", str(figure)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("icfm", "copy-previous", "ot-midpoint", "floor"))
    assert set(pd.read_csv(csv)["method"]) == {"icfm", "copy-previous", "ot-midpoint", "floor", "floor-corrected"}
    assert "<svg" in figure.read_text()


FIT = ["fit", "{path}", "--time-key", "time"]
LOO = ["leave-one-out", "{path}", "--time-key", "time"]


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["fit", "nowhere.h5ad", "--time-key", "time", "--output", "x.h5ad"], "'nowhere.h5ad' is not a file"),
        (["leave-one-out", "{path}", "--time-key", "day"], "columns that exist: 'time'"),
        ([*FIT, "--method", "magic", "--output", "x.h5ad"], "choose one of"),
        ([*FIT, "--condition-key", "arm", "--output", "x.h5ad"], "columns that exist: 'time'"),
        ([*FIT, "--population-size", "counts", "--output", "x.h5ad"], "'counts' is not a key of adata.uns"),
        ([*FIT, "--output", "{path}.d/x.h5ad"], "x.h5ad' does not exist; make it"),
        ([*FIT, "--output", "{folder}"], "is a folder; name a file in it"),
        ([*LOO, "--csv", "{path}.d/x.csv"], "x.csv' does not exist"),
        ([*LOO, "--figure", "{path}.d/x.png"], "x.png' does not exist"),
        ([*LOO, "--figure", "{folder}/x.xls"], "must end with one of .png, .pdf, .svg"),
        ([*LOO, "--csv", "{path}"], "is the input, which would be lost; name another"),
        ([*LOO, "--csv", "{folder}/x.svg", "--figure", "{folder}/x.svg"], "is the file of --csv, which would be lost"),
        (["interpolate", "{path}", "--time", "2", "--output", "{path}"], "is the input, which would be lost"),
        (["fate", "{path}", "--groupby", "time", "--output", "{path}", "--csv", "{path}"], "which would be lost"),
        (["report", "{path}", "--time-key", "time", "--output", "{path}"], "is the input, which would be lost"),
        (["velocity", "{path}", "--output", "{folder}/x.h5ad"], "uns['thalweg']"),
    ],
)
def test_errors_are_one_line_and_a_status(path, capsys, args, match):
    before = path.read_bytes()
    assert main([a.format(path=path, folder=path.parent) for a in args]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("thalweg: error:")
    assert match in error
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ([*FIT, "--output", "x.h5ad", "--baselin", "NaN"], "unrecognized arguments: --baselin NaN"),
        ([*FIT, "--output", "x.h5ad", "--copy"], "unrecognized arguments: --copy"),
        ([*FIT, "--output", "x.h5ad", "--n-dims", "few"], "argument --n-dims: 'few' is not INTEGER"),
        ([*FIT, "--output", "x.h5ad", "--n-dims", "2", "--n-dims", "3"], "takes one value, found 2: 2 3"),
        ([*FIT, "--output", "x.h5ad", "--time-map", "D0"], "argument --time-map: 'D0' is not LABEL=NUMBER"),
        ([*FIT, "--output", "x.h5ad", "--config", "max_steps=-1"], "argument --config: max_steps must be positive"),
        (["fit", "{path}", "--output", "x.h5ad"], "the following arguments are required: --time-key"),
        (["fit", "--time-key", "time", "--output", "x.h5ad"], "the following arguments are required: INPUT"),
        (["velocity", "{path}", "--output", "x.h5ad", "--kind", "mean"], "'mean' is not drift|flow"),
        (["fti"], "invalid choice: 'fti'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_status_2(path, capsys, args, match):
    with pytest.raises(SystemExit, match="2"):
        main([a.format(path=path) for a in args])
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("thalweg: error:")
    assert match in error
    assert "--help" in error


def test_a_folder_that_does_not_exist_is_refused_before_training(path, tmp_path, monkeypatch):
    monkeypatch.setattr(tw, "read_h5ad", lambda *args, **kwargs: pytest.fail("read first"))
    assert main(["fit", str(path), "--time-key", "time", "--output", str(tmp_path / "no" / "x.h5ad")]) == 1


def test_a_file_is_replaced_whole_or_not_at_all(fitted, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.h5ad"
    path.write_bytes(fitted.read_bytes())
    args = ["velocity", str(path), "--device", "cpu", "--output", str(path)]

    def full_disk(self, filename):
        filename.write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ad.AnnData, "write_h5ad", full_disk)
        assert main(args) == 1
    assert "thalweg: error: No space left on device" in capsys.readouterr().err
    assert path.read_bytes() == fitted.read_bytes()
    assert main(args) == 0
    assert f"replaced {path}" in capsys.readouterr().out
    assert "velocity_X_pca" in ad.read_h5ad(path).obsm
    assert [p.name for p in tmp_path.iterdir()] == ["mine.h5ad"]


def test_help_loads_no_function(capsys):
    code = (
        "import sys\nfrom thalweg.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'anndata', 'pandas'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "light"
    assert all(f"\n  {name} " in done.stdout for name in ("demo", *_commands.COMMANDS))


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"thalweg {tw.__version__}\n"


def test_summary_averages_over_times_then_seeds():
    rows = [("a", 1.0, 0, 1.0), ("a", 2.0, 0, 3.0), ("a", 1.0, 1, 2.0), ("a", 2.0, 1, 4.0), ("floor", 1.0, 0, 0.5)]
    scores = pd.DataFrame(rows, columns=["method", "time", "seed", "w1"])
    scores[["w1_both_ends", "share", "energy_distance", "variance_ratio", "fit_seconds"]] = 1.0
    lines = summary(scores).splitlines()
    assert "2.500 ± 0.707" in lines[1]  # seeds: 2 and 3
    assert lines[-1].startswith("floor")


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "mean cosine" in text
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_python_dash_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "thalweg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"thalweg {tw.__version__}\n"
    failed = subprocess.run(
        [sys.executable, "-m", "thalweg", "fit", "no.h5ad", "--time-key", "t", "--output", "x.h5ad"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert "thalweg: error:" in failed.stderr
