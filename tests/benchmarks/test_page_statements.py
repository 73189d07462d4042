"""Sentences of the pages that compare figures of several rows: they hold in the files of results."""

from __future__ import annotations

import re
from typing import Any

import pytest
from benchmarks.common import results

COURSES = ("simulated", "MEF, 5 PCs", "MEF, 50 PCs", "LARRY subset, 10 PCs")


def load(name: str) -> Any:
    return results.load(results.path_of(name))


@pytest.fixture(scope="module")
def suite() -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["course"], row["method"]): row for row in load("suite")["summary"]}


def test_pairs_at_random_are_worse_on_every_course(suite) -> None:
    for course in COURSES:
        assert suite[course, "icfm"]["w1"] > suite[course, "otcfm"]["w1"], course
    for dims in (5, 50, 100):
        summary = load(f"cite_{dims}_index")["summary"]
        assert summary["icfm"]["w1"] > summary["otcfm"]["w1"], dims


def test_growth_helps_on_cite_and_the_simulated_courses_and_hurts_on_larry(suite) -> None:
    summary = load("cite_5_index")["summary"]
    assert summary["usb"]["w1"] < 0.9 * summary["otcfm"]["w1"]
    assert suite["simulated", "uotcfm"]["w1"] < 0.9 * suite["simulated", "otcfm"]["w1"]
    assert suite["LARRY subset, 10 PCs", "uotcfm"]["w1"] > suite["LARRY subset, 10 PCs", "otcfm"]["w1"]
    ratio = suite["MEF, 5 PCs", "uotcfm"]["w1"] / suite["MEF, 5 PCs", "otcfm"]["w1"]
    assert ratio == pytest.approx(1.03, abs=0.005)


def test_both_ends_predict_better_most_of_all_on_larry(suite) -> None:
    gain = {key: 1 - row["w1_both_ends"] / row["w1"] for key, row in suite.items()}
    assert {key for key, value in gain.items() if value <= 0} == {("MEF, 5 PCs", "icfm")}
    assert min(gain.values()) > -0.005
    mean = {c: sum(v for (course, _), v in gain.items() if course == c) for c in COURSES}
    assert max(mean, key=mean.get) == "LARRY subset, 10 PCs"


def test_on_the_simulated_courses_methods_with_growth_lead_and_usb_has_the_best_cosine(suite) -> None:
    rows = {method: row for (course, method), row in suite.items() if course == "simulated"}
    ordered = sorted(rows, key=lambda m: rows[m]["w1"])
    assert {*ordered[:2]} == {"usb", "uotcfm"}
    assert rows["usb"]["w1"] == rows["uotcfm"]["w1"]
    assert ordered[2] == "uam"
    assert rows["uam"]["w1"] / rows["usb"]["w1"] == pytest.approx(1.02, abs=0.005)
    assert max(rows, key=lambda m: rows[m]["velocity_cosine"]) == "usb"


def test_the_noise_of_a_sample_costs_w1_and_helps_the_energy_distance_in_many_components() -> None:
    energy = {(row["dims"], row["method"]): row["mean"] for row in load("cite_energy")["summary"]}
    for dims in (50, 100):
        summary = load(f"cite_{dims}_index")["summary"]
        assert summary["usb, sample"]["w1"] > summary["usb"]["w1"]
        assert energy[dims, "usb, sample"] < energy[dims, "usb"]


def test_the_targets_of_the_notes_are_met() -> None:
    assert load("cite_5_index")["summary"]["usb"]["w1"] < 0.74
    for dims in (50, 100):
        summary = load(f"cite_{dims}_index")["summary"]
        best = min(row["w1"] for name, row in summary.items() if name.startswith("torchcfm"))
        assert summary["usb"]["w1"] < 0.95 * best


def test_the_floor_is_half_of_a_good_score_at_five_components_and_two_thirds_at_more() -> None:
    share = {}
    for dims in (5, 50, 100):
        summary = load(f"cite_{dims}_index")["summary"]
        share[dims] = summary["floor"]["w1"] / summary["usb"]["w1"]
    assert 0.45 < share[5] < 0.6
    assert min(share[50], share[100]) > 2 / 3


def test_seeds_of_otcfm_and_usb_differ_by_a_few_parts_in_a_thousand() -> None:
    for dims in (5, 50, 100):
        summary = load(f"cite_{dims}_index")["summary"]
        assert all(summary[m]["w1_sd"] < 0.005 * summary[m]["w1"] for m in ("otcfm", "usb"))


def test_energy_distance_likes_the_honest_forecast_best() -> None:
    best = load("reading_w1")["best"]
    assert len(best) == 5
    assert all(row["factor_energy"] == 1.0 for row in best)
    assert best[-1]["factor_w1"] < 0.5


def test_more_neighbours_make_fates_closer_to_the_truth_and_tell_sisters_less_well() -> None:
    fate = {(row["time"], row["method"]): row["mean_absolute_error"] for row in load("velocity")["fate"]}
    gain = {t: fate[t, "otcfm"] - fate[t, "otcfm, 60 neighbours"] for t in ("all", "undecided")}
    assert 0 < gain["all"] < gain["undecided"]
    told = {
        (row["dims"], row["cells"], row["method"]): row["sisters_same_way"] / row["others_same_way"]
        for row in load("larry")["summary"]
    }
    for (dims, cells, method), ratio in told.items():
        if cells == "all" and method.endswith(", 60 neighbours"):
            assert ratio < told[dims, cells, method.removesuffix(", 60 neighbours")]


def test_contrastive_pairs_improve_no_score_of_cells_beyond_its_noise() -> None:
    rows = load("contrastive_cells")["summary"]
    for row in rows:
        (plain,) = (r for r in rows if r["data"] == row["data"] and r["weight"] == 0)
        assert row["w1_mean"] > plain["w1_mean"] - plain["w1_std"] - row["w1_std"]


def images(name: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Difference in FD to the baseline and its interval, by run and sampler, of a table of the page."""
    page = (results.ROOT / "benchmarks" / "images" / "README.md").read_text(encoding="utf-8")
    table = page.partition(f"<!-- results:{name} -->")[2].partition(f"<!-- /results:{name} -->")[0]
    out = {}
    for line in table.splitlines():
        found = re.search(r"^\| ([^|]+) \| ([^|]+) \|.* ([+−]\d\.\d+) ± (\d\.\d+) \|", line)
        if found:
            run, sampler, mean, half = found.groups()
            out[run, sampler] = float(mean.replace("−", "-")), float(half)
    return out


def test_no_dispersive_variant_is_better_with_certainty_and_five_are_worse() -> None:
    found = {run: d for (run, sampler), d in images("images_digits_dispersive").items() if sampler == "euler-32"}
    assert len(found) == 12
    assert not [run for run, (mean, half) in found.items() if mean + half < 0]
    assert sum(mean - half > 0 for mean, half in found.values()) == 5
    assert min(found, key=lambda run: found[run][0]) == "hinge dispersive"
    assert all(mean > 0 for run, (mean, _) in found.items() if run.endswith(("independent", "restricted")))


def test_undo_is_within_four_hundredths_of_no_contrast() -> None:
    undone = [m for (_, sampler), (m, _) in images("images_digits_contrastive").items() if sampler.endswith("undo")]
    assert len(undone) == 16
    assert max(map(abs, undone)) < 0.04


def test_minutes_of_the_image_runs_are_those_stated() -> None:
    def minutes(name: str, *parts: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for part in parts:
            for run, seconds in load(f"images_{name}")[part].items():
                seed = run.rpartition("-s")[2]
                total[seed] = total.get(seed, 0.0) + seconds / 60
        return total

    both = ("train_seconds", "score_seconds")
    seeds = [m for n in ("objectives", "contrastive", "dispersive") for m in minutes(f"digits_{n}", *both).values()]
    assert (round(min(seeds)), round(max(seeds))) in {(7, 21), (8, 21)}
    assert sum(minutes("digits_demo", *both).values()) == pytest.approx(0.4, abs=0.15)
    assert round(minutes("mnist_demo", "train_seconds")["0"]) == 24
    assert round(minutes("mnist_demo", "score_seconds")["0"]) == 7


def test_fates_and_drift_of_the_bridge_are_nearer_to_the_truth_than_those_of_every_other_method() -> None:
    """On each of the three courses, not in the mean alone."""
    found = load("velocity")
    fates = [row for row in found["fate_rows"] if row["method"] != "another draw"]
    drifts = [row for row in found["velocity_rows"] if row["by"] == "all"]
    wanted = [("all", "correlation", fates), ("undecided", "correlation", fates), ("all", "cosine", drifts)]
    for group, figure, rows in wanted:
        for seed in {row["seed"] for row in rows}:
            own = [row for row in rows if row["seed"] == seed and row.get("time", row.get("group")) == group]
            assert len(own) >= 5
            assert max(own, key=lambda row: row[figure])["method"] == "usb", (group, figure, seed)


def test_the_diffusion_of_simulated_courses_is_found() -> None:
    """Within 15 % where components diffuse; at most .1 where they hold noise."""
    rows = load("velocity")["diffusion"]
    assert len(rows) == 3 * 15
    for row in rows:
        if row["true"] > 0.1:
            assert abs(row["sigma"] / row["true"] - 1) < 0.15, row
        else:
            assert row["sigma"] <= 0.1, row
