"""Values as words: how each type of an argument is written on the command line."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import thalweg as tw


def _flag(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError
    return word.lower() == "true"


def _none(word: str) -> None:
    if word.lower() != "none":
        raise ValueError


_READERS: dict[type, Callable[[str], Any]] = {NoneType: _none, bool: _flag, int: int, float: float, str: str}
"""What reads a word, tried in this order."""
_SHOWN = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT"}
"""What the help shows in the place of a word."""


@dataclass(frozen=True)
class Form:
    """How the values of a type are written.

    Attributes
    ----------
    nargs
        How many words there are, as argparse counts them; 0 is a switch, which has ``--name`` and ``--no-name``.
    shown
        What the help shows in the place of a word.
    read
        The value of the words. It raises ValueError with what is wrong with them.
    hint
        How several words or parts of a word are written.
    """

    nargs: int | str
    shown: str
    read: Callable[[Sequence[str]], Any]
    hint: str = ""


def form_of(annotation: Any) -> Form | None:
    """How values of an annotation are written; None where no words can write any.

    Of a union, every alternative that words can write is read; objects such as functions are left to Python.
    """
    kinds = _alternatives(annotation)
    if set(kinds) - {NoneType} == {bool}:
        return Form(0, "", bool)
    if tw.tl.FitConfig in kinds:
        names = ", ".join(_fields())
        return Form("+", "FIELD=VALUE", _config, f"Fields: {names}. Several numbers of a field have commas between.")
    table = next((kind for kind in kinds if get_origin(kind) is Mapping), None)
    row = next((kind for kind in kinds if get_origin(kind) in (Sequence, tuple)), None)
    items = get_args(row)[:1] if row else kinds
    word = _word(tuple(kind for item in items for kind in _alternatives(item)))
    if table is None and word is None:
        return None
    several = row is not None or table is not None
    length = len(get_args(row)) if get_origin(row) is tuple else None
    nargs = "*" if bool in kinds else length or ("+" if several else 1)
    shown = "|".join(filter(None, (word.shown if word else "", _table_shown(table) if table else "")))
    return Form(nargs, shown, _Reader(table, word, row is not None, length), _hint(kinds, table, bool in kinds))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _table_shown(table: Any) -> str:
    return "TIME=NUMBER" if _nested(table) or get_args(table)[0] is float else "LABEL=NUMBER"


def _hint(kinds: Sequence[Any], table: Any, bare: bool) -> str:
    """What the help says of a form, beyond what it shows."""
    if table is not None:
        return "With conditions: CONDITION=TIME=NUMBER. A word without = is a key." if _nested(table) else ""
    if {str, float} <= set(kinds):
        return "NaN stands for cells without a label."
    return "Alone, it means true." if bare else ""


@dataclass(frozen=True)
class _Word:
    """One word: a choice, or a value of one of the types."""

    choices: tuple[str, ...]
    types: tuple[type, ...]
    nan: bool

    @property
    def shown(self) -> str:
        return "|".join([*self.choices, *(_SHOWN[one] for one in self.types if one is not NoneType)])

    def read(self, word: str) -> Any:
        if word in self.choices:
            return word
        if self.nan and word.lower() == "nan":
            return float("nan")
        for one in self.types:
            try:
                return _READERS[one](word)
            except ValueError:
                continue
        raise ValueError(f"{word!r} is not {self.shown}")


def _word(kinds: Sequence[Any]) -> _Word | None:
    choices = tuple(str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind))
    types = tuple(one for one in _READERS if one in kinds)
    if not choices and not set(types) - {NoneType}:
        return None
    if str in types:  # every word is text; of the numbers beside it, NaN alone is no label
        return _Word(choices, (str,), float in types)
    return _Word(choices, types, False)


@dataclass(frozen=True)
class _Reader:
    """Words as a mapping, a list or one value."""

    table: Any
    word: _Word | None
    several: bool
    length: int | None

    def __call__(self, words: Sequence[str]) -> Any:
        if not words:  # as `--genes` alone
            return True
        if self.table is not None and (self.word is None or any("=" in word for word in words)):
            return _nested_table(words) if _nested(self.table) else _table(self.table, words)
        if self.word is None or (not self.several and len(words) > 1) or self.length not in (None, len(words)):
            raise ValueError(f"takes {self.length or 'one value'}, found {len(words)}: {' '.join(words)}")
        values = [self.word.read(word) for word in words]
        return values if self.several else values[0]


def _nested(table: Any) -> bool:
    """Whether a mapping may hold mappings."""
    return get_args(table)[1] is Any


def _table(kind: Any, words: Sequence[str]) -> dict[Any, float]:
    """``D0=0 D3=3``: the number stands behind the last sign."""
    out: dict[Any, float] = {}
    for word in words:
        label, _, number = word.rpartition("=")
        key = _number(label, word) if get_args(kind)[0] is float else label
        _put(out, key, number, word)
    return out


def _nested_table(words: Sequence[str]) -> dict[str, Any]:
    """``D0=1000 D3=4000``, or ``KO=D0=1000 KO=D3=4000`` of conditions."""
    parts = [word.split("=") for word in words]
    if {len(part) for part in parts} not in ({2}, {3}):
        raise ValueError(f"needs TIME=NUMBER for each time, or CONDITION=TIME=NUMBER for all; found {' '.join(words)}")
    out: dict[str, Any] = {}
    for word, (*above, label, number) in zip(words, parts, strict=True):
        _put(out.setdefault(above[0], {}) if above else out, label, number, word)
    return out


def _put(out: dict[Any, float], label: Any, number: str, word: str) -> None:
    if label == "":
        raise ValueError(f"{word!r} is not LABEL=NUMBER")
    if label in out:
        raise ValueError(f"{label!r} is given twice")
    out[label] = _number(number, word)


def _number(text: str, word: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{word!r} is not LABEL=NUMBER: {text!r} is no number") from None


def _fields() -> dict[str, _Field]:
    """The fields of a configuration that words can write."""
    types = typing.get_type_hints(tw.tl.FitConfig)
    found = {field.name: _Field.of(types[field.name]) for field in fields(tw.tl.FitConfig)}
    return {name: field for name, field in found.items() if field is not None}


@dataclass(frozen=True)
class _Field:
    """How a field of a configuration is written: one value, or several with commas between."""

    word: _Word
    several: bool

    @classmethod
    def of(cls, annotation: Any) -> _Field | None:
        kinds = _alternatives(annotation)
        word = _word(kinds)
        return None if word is None else cls(word, any(get_origin(kind) is Sequence for kind in kinds))

    def read(self, text: str) -> Any:
        if self.several and "," in text:
            return tuple(self.word.read(part) for part in text.split(","))
        return self.word.read(text)


def _config(words: Sequence[str]) -> Any:
    """``max_steps=500 sigma=auto``."""
    known, given = _fields(), {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in known:
            raise ValueError(f"{name!r} is no field of a configuration that can be given here; fields: {[*known]}")
        if name in given:
            raise ValueError(f"{name!r} is given twice")
        try:
            given[name] = known[name].read(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return tw.tl.FitConfig(**given)
