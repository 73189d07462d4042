"""The commands: a function of ``tw.tl`` each, and what is done with its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import thalweg as tw
from thalweg.cli._options import Option, Parser, options_of, read
from thalweg.cli._results import PAGE, SCORES, Done, Result, Table, h5ad
from thalweg.errors import InputError


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes
    ----------
    verb
        Name of its function in ``tw.tl``, from which its options are made.
    says
        What it does, in a line.
    result
        What is written.
    """

    verb: str
    says: str
    result: Result


_COMPARED = [Table(f"{t}-csv", "compare_df", {"table": t}) for t in ("fates", "composition", "divergence", "genes")]
COMMANDS = {
    "fit": Command("fit", "fit a flow and store it in the file", h5ad()),
    "interpolate": Command("interpolate", "predict the cells at any time", h5ad(new=True)),
    "velocity": Command("velocity", "write the velocity of every cell", h5ad()),
    "fate": Command("fate", "write the probability of each fate for every cell", h5ad(Table("csv", "fate_df"))),
    "compare": Command("compare", "write what differs between the arms", h5ad(*_COMPARED)),
    "leave-one-out": Command("leave_one_out", "score methods on times that are left out", SCORES),
    "assess": Command("assess", "say whether the trajectories can be trusted", h5ad(Table("csv", "assessment_df"))),
    "report": Command("assess", "write that and its evidence as a page with figures", PAGE),
}
_WRITTEN = (
    "Names, defaults and texts are those of Python. Several values have a space between them, and a mapping such as "
    "{'day 0': 0, 'day 3': 3} is written 'day 0=0' 'day 3=3'."
)


def parser_of(name: str) -> tuple[Parser, dict[str, Option]]:
    """The parser of a command, and the options of its function."""
    command = COMMANDS[name]
    options = options_of(getattr(tw.tl, command.verb))
    required = [f"{option.flag} {option.form.shown}" for option in options.values() if option.required]
    required += [f"{file.flag} FILE" for file in command.result.files if file.required]
    parser = Parser(
        prog=f"thalweg {name}",
        usage=" ".join(["%(prog)s INPUT", *required, "[options]"]),
        description=f"{command.says[0].upper()}{command.says[1:]}. In Python, help(tw.tl.{command.verb}) says more.",
        allow_abbrev=False,  # a short form would change its meaning with the next parameter
    )
    files = parser.add_argument_group("files")
    files.add_argument("input", metavar="INPUT", help="h5ad with the cells; name it before the options")
    for file in command.result.files:
        files.add_argument(file.flag, metavar="FILE", required=file.required, default=file.default, help=file.help)
    group = parser.add_argument_group(f"parameters of tw.tl.{command.verb}", _WRITTEN)
    for option in options.values():
        option.add_to(group)
    return parser, options


def run(name: str, words: Sequence[str]) -> None:
    """Run a command on the words behind its name.

    Raises
    ------
    ThalwegError
        As the function does; before it runs, InputError if a file could not be written.
    """
    result = COMMANDS[name].result
    parser, options = parser_of(name)
    given = vars(parser.parse_args(words))
    arguments = read(parser, options, given)
    files = {file.name: Path(given[file.place]) for file in result.files if given[file.place] is not None}
    _check_files(Path(given["input"]), files, result)
    adata = tw.read_h5ad(given["input"])
    found = getattr(tw.tl, COMMANDS[name].verb)(adata, **arguments)
    result.write(Done(adata if found is None else found, arguments, files, Path(given["input"])))


def _check_files(source: Path, files: Mapping[str, Path], result: Result) -> None:
    """Refuse files that could not be written, and those that would destroy the cells, before anything runs."""
    taken = {} if result.keeps_input else {source.resolve(): "the input"}
    for name, path in files.items():
        if not path.parent.is_dir():
            raise InputError(f"the folder of {str(path)!r} does not exist; make it first.")
        if path.is_dir():
            raise InputError(f"--{name} {str(path)!r} is a folder; name a file in it.")
        if path.resolve() in taken:
            raise InputError(f"--{name} {str(path)!r} is {taken[path.resolve()]}, which would be lost; name another.")
        taken |= {path.resolve(): f"the file of --{name}", source.resolve(): "the input"}
        suffixes = result.suffixes(name)
        if suffixes and path.suffix not in suffixes:
            raise InputError(f"--{name} {str(path)!r} must end with one of {', '.join(suffixes)}.")
