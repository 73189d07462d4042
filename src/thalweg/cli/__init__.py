"""The ``thalweg`` command: ``demo``, ``fit``, ``leave-one-out`` and ``report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from thalweg import __version__
from thalweg.errors import ThalwegError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    from thalweg.cli import _commands

    try:
        getattr(_commands, args.command.replace("-", "_"))(args)
    except (ThalwegError, FileNotFoundError) as error:
        print(f"thalweg: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thalweg", description="Flows between the time points of a single-cell time course."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="leave each interior time point out of a small course and predict it")
    demo.add_argument("--dataset", choices=("simulated", "cite"), default="simulated")
    demo.add_argument("--seeds", type=int, default=None, help="seeds for each method (simulated: 2, cite: 1)")
    demo.add_argument("--out", default="thalweg_demo", help="folder for the figure and the table (thalweg_demo)")

    fit = commands.add_parser("fit", help="fit a flow and write it into the h5ad")
    _data_arguments(fit)
    fit.add_argument("--method", default="usb", help="name of a method, as of tw.tl.fit (usb)")
    fit.add_argument("--seed", type=int, default=0, help="of the random numbers (0)")
    fit.add_argument("--output", required=True, help="h5ad to write; may be the input")
    _checkpoint_arguments(fit, "training saves itself")

    loo = commands.add_parser("leave-one-out", help="score methods on held-out time points")
    _data_arguments(loo)
    loo.add_argument("--methods", nargs="+", default=["usb", "otcfm"], help="names, a space between (usb otcfm)")
    loo.add_argument("--seeds", type=int, default=3, help="number of fits for each method and time (3)")
    _checkpoint_arguments(loo, "finished scores are saved")
    loo.add_argument("--csv", default=None, help="write every row here")
    loo.add_argument("--figure", default=None, help="write the figure here (png, pdf or svg)")

    report = commands.add_parser("report", help="assess a course: can its trajectories be trusted, and why")
    _data_arguments(report, spacing=False)
    report.add_argument("--methods", nargs=2, default=["usb", "otcfm"], help="two names; the verdict is on the first")
    report.add_argument("--n-cells", type=int, default=2000, help="cells of a time that are fitted, at most (2000)")
    report.add_argument("--seed", type=int, default=0, help="of the random numbers (0)")
    report.add_argument("--output", default="report.html", help="page to write (report.html)")
    return parser


def _data_arguments(parser: argparse.ArgumentParser, *, spacing: bool = True) -> None:
    parser.add_argument("input", help="h5ad with the time course")
    parser.add_argument("--time-key", required=True, help="column of obs with the time")
    parser.add_argument("--use-rep", default=None, help="key of obsm (default: the PCA that exists)")
    parser.add_argument("--n-dims", type=int, default=None, help="leading columns to use (default: all)")
    if spacing:
        parser.add_argument(
            "--spacing",
            choices=("clock", "real", "index"),
            default="clock",
            help="time of the cells, of obs, or 0, 1, 2 (clock)",
        )
    parser.add_argument("--max-steps", type=int, default=None, help="training steps at most")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")


def _checkpoint_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--checkpoint-dir", default=None, help=f"folder in which {what} (default: none)")
    parser.add_argument("--resume", action="store_true", help="go on from what is in --checkpoint-dir")
