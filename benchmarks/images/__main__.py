"""Command line of the image benchmarks: ``python -m benchmarks.images [table] [options]``.

    (nothing)     demo: a class-conditional model of the digits, samples and scores
    objectives    FM-OT, FM-VP, SM-VP, I-CFM, OT-CFM, SB-CFM
    contrastive   ΔFM over lambda, with and without undo and guidance
    dispersive    the four dispersive losses beside none and their contrastive counterparts
    translation   one image set to another by OT-CFM
    steptime      a training step against torchcfm's
    report        the tables of README.md and the figures, from the results

A killed table goes on where it stopped when the same command is given again. Several devices: `parallel`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from benchmarks.common import results
from benchmarks.common.peers import PeerError
from benchmarks.images import report, steptime, tables, translation
from benchmarks.images.data import DATASETS, Split, load, split
from benchmarks.images.fid import inception_fid
from benchmarks.images.judge import Judge, JudgeConfig
from benchmarks.images.objectives import OBJECTIVES
from benchmarks.images.parallel import World, world
from benchmarks.images.runs import RunConfig
from benchmarks.images.store import run_table, stored_judge

from thalweg.errors import InputError, ThalwegError

COMMANDS = ("demo", "objectives", "contrastive", "dispersive", "translation", "steptime", "report")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__.splitlines()[0])
    p.add_argument("table", nargs="?", default="demo", choices=COMMANDS)
    p.add_argument("--dataset", default="digits", help=f"{', '.join(DATASETS)} or an .npz file with x and y")
    p.add_argument("--data-dir", type=Path, help="folder of the data sets (THALWEG_DATA_DIR)")
    p.add_argument("--out", type=Path, default=results.FOLDER / "images_runs", help="folder of the runs")
    p.add_argument("--results", type=Path, default=results.FOLDER, help="folder of the tables' JSON and figures")
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    p.add_argument("--threads", type=int, default=1, help="of the CPU (1: fastest for small networks)")
    p.add_argument("--bfloat16", action="store_true", help="mixed precision")
    p.add_argument("--no-progress", action="store_true")
    size = p.add_argument_group("size, each as the data set's recipe has it")
    size.add_argument("--steps", type=int)
    size.add_argument("--batch-size", type=int)
    size.add_argument("--width", type=int)
    size.add_argument("--n", type=int, help="images in a score")
    size.add_argument("--bits-images", type=int, help="images of the bits per dimension")
    size.add_argument("--bits-k", type=int, default=1, help="dequantisations of the bits per dimension")
    size.add_argument("--bits-trace", default="hutchinson", choices=("exact", "hutchinson"))
    vary = p.add_argument_group("what a table varies")
    vary.add_argument("--objectives", nargs="+", help=f"of {', '.join(OBJECTIVES)}")
    vary.add_argument("--lambdas", nargs="+", type=float, default=tables.LAMBDAS)
    vary.add_argument("--negatives", default="any", choices=("any", "other_condition"))
    vary.add_argument("--kinds", nargs="+", default=tables.KINDS)
    vary.add_argument("--weights", nargs="+", type=float, default=(0.5,))
    vary.add_argument("--taus", nargs="+", type=float, default=(0.5,))
    vary.add_argument("--blocks", nargs="+", default=("0.25",), help="names or fractions of the depth")
    vary.add_argument("--source-classes", nargs="+", type=int, default=(0, 1, 2, 3, 4), help="translation: from")
    vary.add_argument("--target-classes", nargs="+", type=int, default=(5, 6, 7, 8, 9), help="translation: to")
    p.add_argument("--inception-weights", type=Path, help="adds true FID to the demo, by torchmetrics")
    return p


def runs_of(args: argparse.Namespace, processes: int) -> dict[str, RunConfig]:
    """The runs of the table asked for, over all seeds."""
    changes = tables.Changes(
        steps=args.steps,
        batch_size=args.batch_size,
        width=args.width,
        n=args.n,
        bits_images=args.bits_images,
        bits_k=args.bits_k,
        bits_trace=args.bits_trace,
        bfloat16=args.bfloat16,
        processes=processes,
    )
    if args.table == "objectives":
        table = tables.objectives(args.dataset, changes, args.objectives or OBJECTIVES)
    elif args.table == "contrastive":
        table = tables.contrastive(args.dataset, changes, args.lambdas, args.negatives)
    elif args.table == "dispersive":
        options = {"kinds": args.kinds, "weights": args.weights, "taus": args.taus, "blocks": args.blocks}
        table = tables.dispersive(args.dataset, changes, **options)
    elif args.table == "translation":
        table = tables.translation(args.dataset, changes, (tuple(args.source_classes), tuple(args.target_classes)))
    else:
        table = tables.demonstration(args.dataset, changes, args.objectives or ("fm-ot",))
    return tables.with_seeds(table, args.seeds)


def prepare(args: argparse.Namespace, here: World) -> tuple[Split, Judge]:
    """The split images and the classifier, on the device of this process."""
    parts = split(load(args.dataset, args.data_dir))
    parts = Split(*(part.to(here.device) for part in (parts.train, parts.reference, parts.judge)))
    folder = args.out / Path(args.dataset).stem
    return parts, stored_judge(folder, args.dataset, parts.judge, JudgeConfig(), here, progress=not args.no_progress)


def run(args: argparse.Namespace) -> None:
    if args.threads < 1:
        raise InputError(f"threads must be at least 1, found {args.threads}.")
    torch.set_num_threads(args.threads)
    if args.table == "report":
        report.write(args.results, args.out)
        return
    if args.table == "steptime":
        options = {"batch_size": args.batch_size or 128, "steps": args.steps or 30, "width": args.width or 16}
        print(f"written: {steptime.run(args.results, progress=not args.no_progress, **options)}")
        return
    with world(args.device) as here:
        parts, judge = prepare(args, here)
        runs = runs_of(args, here.size)
        folder = args.out / Path(args.dataset).stem / args.table
        if args.table == "translation":
            result = translation.run_translation(runs, parts, judge, folder, here, progress=not args.no_progress)
        else:
            result = run_table(runs, parts, judge, folder, here, progress=not args.no_progress)
        if not here.first:
            return
        path = report.store(result, args.results, args.table, args.dataset, vars(args), folder)
        report.show(result)
        print(f"written: {path}")
        if args.inception_weights is not None:
            name, config = next(iter(runs.items()))
            print(f"FID of {name}: {inception_fid(folder / name, config, parts, args.inception_weights, here):.2f}")


def main() -> None:
    args = parser().parse_args()
    try:
        run(args)
    except (ThalwegError, PeerError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
