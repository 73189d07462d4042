"""Words of the command line as values of a type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import pytest

import thalweg as tw
from thalweg.cli._values import form_of
from thalweg.data.recipe import Baseline, Columns
from thalweg.data.sizes import Sizes
from thalweg.data.times import TimeMap
from thalweg.flows.methods import Method
from thalweg.flows.time_axis import Spacing

Kind = Literal["plan", "flow"] | None
READ = [
    (str, "day", "day"),
    (str | None, "none", "none"),  # a text may be anything
    (str | Method, "usb", "usb"),
    (str | PathLike[str] | None, "a/b", "a/b"),
    (int, "3", 3),
    (int | None, "none", None),
    (int | np.random.Generator | None, "7", 7),
    (float, "1e-3", 1e-3),
    (Kind, "plan", "plan"),
    (bool | float, "", True),
    (bool | float | None, "false", False),
    (bool | float | None, "0.5", 0.5),
    (bool | Sequence[str], "", True),
    (bool | Sequence[str], "Gata1 true", ["Gata1", "true"]),
    (Sequence[float] | None, "1 2.5", [1.0, 2.5]),
    (str | Method | Callable[..., Any] | Sequence[str | Method], "usb otcfm", ["usb", "otcfm"]),
    (tuple[str, str], "usb otcfm", ["usb", "otcfm"]),
    (Columns, "genotype", ["genotype"]),
    (Columns, "genotype treatment", ["genotype", "treatment"]),
    (Baseline, "3", "3"),  # labels are text
    (TimeMap | None, "D0=0 D-1=-1 a=b=2.5", {"D0": 0.0, "D-1": -1.0, "a=b": 2.5}),
    (Spacing, "clock", "clock"),
    (Spacing, "0=0 3=1.5", {0.0: 0.0, 3.0: 1.5}),
    (Sizes | None, "counts", "counts"),
    (Sizes | None, "D0=1e3 3=4000", {"D0": 1e3, "3": 4e3}),
    (Sizes | None, "KO=0=1 KO=3=2 ctrl=0=1", {"KO": {"0": 1.0, "3": 2.0}, "ctrl": {"0": 1.0}}),
]


@pytest.mark.parametrize(("annotation", "words", "value"), READ, ids=lambda v: str(v)[:40])
def test_words_read_as_the_value(annotation, words, value):
    found = form_of(annotation).read(words.split())
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_baseline_of_cells_without_a_label():
    assert math.isnan(form_of(Baseline).read(["NaN"]))
    assert form_of(str | None).read(["NaN"]) == "NaN"  # elsewhere it is a name


def test_a_switch_has_no_words():
    assert form_of(bool).nargs == form_of(bool | None).nargs == 0


@pytest.mark.parametrize(
    ("annotation", "words", "match"),
    [
        (int, "2.5", r"'2.5' is not INTEGER"),
        (int, "2 3", r"takes one value, found 2: 2 3"),
        (float, "much", r"'much' is not NUMBER"),
        (Kind, "plans", r"'plans' is not plan\|flow"),
        (bool | float, "yes", r"'yes' is not true\|false\|NUMBER"),
        (tuple[str, str], "usb", r"takes 2, found 1"),
        (Sequence[float], "1 x", r"'x' is not NUMBER"),
        (Spacing, "calendar", r"'calendar' is not clock\|real\|index"),
        (Spacing, "0=0 a=1", r"'a' is no number"),
        (TimeMap, "D0", r"'D0' is not LABEL=NUMBER"),
        (TimeMap, "D0=0 D0=1", r"'D0' is given twice"),
        (TimeMap, "D0=zero", r"'zero' is no number"),
        (Sizes, "0=1 KO=3=2", r"CONDITION=TIME=NUMBER for all; found 0=1 KO=3=2"),
        (Sizes, "KO=0=1 KO=0=2", r"'0' is given twice"),
        (tw.tl.FitConfig, "steps=3", r"'steps' is no field of a configuration.*'max_steps'"),
        (tw.tl.FitConfig, "contrastive=1", r"'contrastive' is no field of a configuration that can be given here"),
        (tw.tl.FitConfig, "width=3 width=4", r"'width' is given twice"),
        (tw.tl.FitConfig, "width=wide", r"width: 'wide' is not INTEGER"),
        (tw.tl.FitConfig, "max_steps=0", r"max_steps must be positive"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_words_that_do_not_read_say_why(annotation, words, match):
    with pytest.raises(ValueError, match=match):
        form_of(annotation).read(words.split())


def test_the_fields_of_a_configuration_have_their_own_types():
    words = "max_steps=50 learning_rate=1e-3 sigma=auto relaxation=0.25,1 affine=false n_threads=none path=straight"
    assert form_of(tw.tl.FitConfig | None).read(words.split()) == tw.tl.FitConfig(
        max_steps=50, learning_rate=1e-3, sigma="auto", relaxation=(0.25, 1.0), affine=False, n_threads=None,
        path="straight",
    )  # fmt: skip
    assert form_of(tw.tl.FitConfig).read(["relaxation=0.5", "sigma=0.1"]).relaxations == (0.5,)


@pytest.mark.parametrize("annotation", [Callable[..., Any], np.ndarray, Method, Sequence[Method], None])
def test_what_no_words_can_write_has_no_form(annotation):
    assert form_of(annotation) is None
