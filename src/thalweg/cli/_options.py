"""Options of a command, made of the signature and the docstring of the function behind it.

An option has the name of the parameter, with dashes, and its text. What is not given is not passed on, so that the
default is always the function's own.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import thalweg as tw
from thalweg.cli._values import Form, form_of

LEFT_OUT = {
    "copy": "a command writes a file",
    "random_state": "another name of rng",
}
"""Parameters that no command has, and why."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with status 2."""
        self.exit(2, f"thalweg: error: {message} ({self.prog} --help lists what can be given)\n")


@dataclass(frozen=True)
class Option:
    """A parameter of a function as an option."""

    parameter: inspect.Parameter
    form: Form
    text: str

    @property
    def flag(self) -> str:
        """The option as it is written."""
        return "--" + self.parameter.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether the function has no default for it."""
        return self.parameter.default is inspect.Parameter.empty

    @property
    def help(self) -> str:
        """The text of the parameter, how it is written, and its default."""
        default = self.parameter.default
        shown = "" if self.required or default is None else f"(default: {_written(default)})"
        return " ".join(filter(None, (self.text, self.form.hint, shown))).replace("%", "%%")

    def add_to(self, parser: argparse._ArgumentGroup) -> None:
        """Declare it; nothing is in the namespace unless it is given."""
        common: dict[str, Any] = {"default": argparse.SUPPRESS, "required": self.required, "help": self.help}
        if self.form.nargs == 0:
            parser.add_argument(self.flag, action=argparse.BooleanOptionalAction, **common)
        else:
            parser.add_argument(self.flag, action="extend", nargs=self.form.nargs, metavar=self.form.shown, **common)

    def value(self, given: Any) -> Any:
        """The value of what was given.

        Raises
        ------
        ValueError
            If words do not read as the type of the parameter.
        """
        return given if self.form.nargs == 0 else self.form.read(given)


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The options of a function by the name of their parameter; all but its first, the AnnData, and `LEFT_OUT`.

    Raises
    ------
    TypeError
        If a parameter has a type that no words can write.
    """
    from anndata import AnnData

    _, *parameters = inspect.signature(function, locals={"AnnData": AnnData}, eval_str=True).parameters.values()
    texts, out = parameter_texts(function), {}
    for parameter in parameters:
        if parameter.name in LEFT_OUT:
            continue
        form = form_of(parameter.annotation)
        if form is None:
            raise TypeError(f"{function.__name__}({parameter.name}: {parameter.annotation}) cannot be written in words")
        out[parameter.name] = Option(parameter, form, texts.get(parameter.name, ""))
    return out


def read(parser: argparse.ArgumentParser, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that were given, as values; words that cannot be read end the program."""
    out = {}
    for name, option in options.items():
        if name in given:
            try:
                out[name] = option.value(given[name])
            except ValueError as error:
                parser.error(f"argument {option.flag}: {error}")
    return out


def parameter_texts(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function says of each parameter, as plain text."""
    found = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n---|\Z)", inspect.getdoc(function) or "", re.M | re.S)
    out = {}
    for names, text in re.findall(r"^(\w[^\n]*)\n((?:[ ]+[^\n]*\n*)+)", found[1] if found else "", re.M):
        for name in names.split(", "):
            elsewhere = re.match(r"\s*As in `(\w+)`", text)
            out[name] = parameter_texts(getattr(tw.tl, elsewhere[1]))[name] if elsewhere else _plain(text)
    return out


def _plain(text: str) -> str:
    """Text without the marks of reStructuredText."""
    return re.sub(r":\w+:`|`+", "", " ".join(text.split()))


def _written(default: Any) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
