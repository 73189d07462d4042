"""The law of the commands: their options are the parameters of their functions."""

from __future__ import annotations

import argparse
import inspect
import re
import shlex
from pathlib import Path

import pytest

import thalweg as tw
from thalweg.cli._commands import COMMANDS, parser_of
from thalweg.cli._options import LEFT_OUT, options_of, parameter_texts, read

ROOT = Path(__file__).parents[2]


def verb_of(name):
    return getattr(tw.tl, COMMANDS[name].verb)


@pytest.fixture(params=COMMANDS)
def name(request):
    return request.param


def test_the_options_are_the_parameters_and_the_files(name):
    parser, _ = parser_of(name)
    found = {flag for action in parser._actions for flag in action.option_strings if not flag.startswith("--no-")}
    parameters = set(inspect.signature(verb_of(name)).parameters) - {"adata"} - LEFT_OUT.keys()
    flags = {"--" + parameter.replace("_", "-") for parameter in parameters}
    files = {file.flag for file in COMMANDS[name].result.files}
    assert found - {"-h", "--help"} == flags | files
    assert not flags & files


def test_what_is_left_out_is_known():
    assert LEFT_OUT.keys() == {"copy", "random_state"}
    assert LEFT_OUT.keys() <= set(inspect.signature(tw.tl.fit).parameters)


def test_the_defaults_are_those_of_the_function(name):
    """What is not given is not passed on; only what the function requires is required."""
    parser, options = parser_of(name)
    parameters = inspect.signature(verb_of(name)).parameters
    required = [p for p, option in options.items() if parameters[p].default is inspect.Parameter.empty]
    assert [p for p, option in options.items() if option.required] == required
    words = [word for p in required for word in (options[p].flag, "1")]
    files = [word for file in COMMANDS[name].result.files if file.required for word in (file.flag, "x")]
    given = vars(parser.parse_args(["in.h5ad", *words, *files]))
    assert read(parser, options, given).keys() == set(required)
    assert given.keys() == {"input", *required, *(file.place for file in COMMANDS[name].result.files)}


def test_the_help_holds_the_text_and_the_default_of_every_parameter(name):
    parser, options = parser_of(name)
    text = " ".join(parser.format_help().split())
    for parameter, option in options.items():
        assert option.text, parameter
        assert not option.text.startswith("As in"), parameter
        assert "`" not in option.text
        default = inspect.signature(verb_of(name)).parameters[parameter].default
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            assert option.help.endswith(f"(default: {default})")
        assert " ".join((option.help % {}).split())[-40:].replace("- ", "-") in text.replace("- ", "-")


def test_a_text_elsewhere_is_looked_up():
    fit = parameter_texts(tw.tl.fit)
    assert fit["time_key"].startswith("Column of obs with the time of each cell")
    assert parameter_texts(tw.tl.assess)["baseline"] == fit["baseline"]


def test_a_label_may_begin_with_a_dash():
    parser, options = parser_of("fit")
    words = ["in.h5ad", "--time-key", "day", "--output", "x", "--time-map=-1d=-1", "--time-map", "0d=0", "2d=2"]
    given = read(parser, options, vars(parser.parse_args(words)))
    assert given["time_map"] == {"-1d": -1.0, "0d": 0.0, "2d": 2.0}


def test_a_parameter_that_no_words_can_write_is_refused():
    def verb(adata, callback: argparse.Action) -> None:
        """Call back."""

    with pytest.raises(TypeError, match=r"verb\(callback: .*Action.*cannot be written in words"):
        options_of(verb)


def commands_in(page):
    """The ``thalweg`` lines of the shell blocks of a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True))[:1] == ["thalweg"]]


SHOWN = [
    (page, words)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for words in commands_in(page)
]


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=lambda v: v.name if isinstance(v, Path) else " ".join(v)[:60])
def test_the_commands_of_the_documentation_can_be_given(page, words):
    name, *rest = words
    if name != "demo" and "--help" not in rest:
        parser, options = parser_of(name)
        read(parser, options, vars(parser.parse_args(rest)))


def test_every_command_is_in_the_documentation():
    assert {words[0] for _, words in SHOWN} >= COMMANDS.keys()
