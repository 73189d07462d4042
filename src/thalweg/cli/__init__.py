"""The ``thalweg`` command: functions of ``tw.tl`` on files, with their parameters as options.

Each command loads its function, and makes its options from it, when it is called; ``thalweg --help`` loads none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from thalweg import __version__
from thalweg.errors import ThalwegError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from thalweg.cli import _commands

    says = {"demo": "leave each interior time of a small course out and predict it"}
    says |= {name: command.says for name, command in _commands.COMMANDS.items()}
    args = _parser(says).parse_args(argv)
    try:
        if args.command == "demo":
            from thalweg.cli import _demo

            _demo.run(args.words)
        else:
            _commands.run(args.command, args.words)
    except (ThalwegError, OSError) as error:
        print(f"thalweg: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser(says: dict[str, str]) -> argparse.ArgumentParser:
    from thalweg.cli._options import Parser

    lines = [f"  {name:<15}{text}" for name, text in says.items()]
    parser = Parser(
        prog="thalweg",
        usage="thalweg COMMAND ... (thalweg COMMAND --help lists its options)",
        description="Flows between the time points of a single-cell time course.",
        epilog="\n".join(["commands:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"thalweg {__version__}")
    parser.add_argument("command", choices=says, metavar="COMMAND", help="one of the commands below")
    words = parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    words.required = False  # so that the message about a missing command names the command alone
    return parser
