r"""`python -m train.tables`: the paper's tables, each a command.

  python -m train.tables --list
  python -m train.tables --table 4 --budget 2000steps --width 16 --blocks 6 --seeds 3 \
      --train BSDS500/train BSDS500/test --test Set12=testsets/Set12 BSD68=BSDS500/val:68
  python -m train.tables --table 7 --authors conversenet.pth converse_usrnet.pth \
      --kernels kernel_1.npy ... kernel_5.npy --test BSD100=BSDS500/val

With --train, rows are trained that are not yet, one after another, first all with the first seed;
without --budget at full size for 800,000 steps. What was stopped goes on where it was. Then the
weights that there are, ours and the authors', are measured on the test sets that are given. Nothing
is trained or measured twice. The folder of --out then holds results.json, tables.md and charts;
what was not run says so. Runs and figures in a results.json that lies there already count as done,
wherever it was made.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from converse_jax.messages import one_line, say
from train.command import exit_status, leave
from train.errors import TrainError, TrainStopped
from train.paper import KERNELS, ROWS, Budget, Row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return exit_status(
        "train.tables",
        lambda: _run(_parser().parse_args(argv)),
        interrupted="interrupted; start it again to go on",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="show all rows and their state, and do nothing")
    add("--table", type=int, nargs="+", choices=range(1, 8), help="tables (default: all)")
    add("--rows", nargs="+", metavar="ROW", help='rows of these tables, e.g. "Conv-DnCNN"')
    add("--train", nargs="+", default=[], metavar="SOURCE", help="images to train on")
    add("--test", nargs="+", default=[], metavar="NAME=FOLDER", help="test sets; FOLDER:N takes N")
    add("--kernels", nargs="+", default=[], metavar="FILE", help="the five blur kernels of table 7")
    add("--authors", nargs="+", default=[], metavar="FILE.pth", help="the authors' weights")
    add("--budget", type=_length, metavar="2000steps|20min", help="length of each training")
    add("--width", type=_count, help="features of every network")
    add("--blocks", type=_count, help="blocks of every network")
    add("--batch-size", type=_count, default=Budget().batch_size, help="patches per step")
    add("--patch-size", type=_count, default=Budget().patch_size, help="side of the patches")
    add(
        "--learning-rate",
        type=float,
        default=Budget().learning_rate,
        help="start of the cosine; this and the two above are of runs with a --budget",
    )
    add("--seeds", type=_count, default=1, metavar="N", help="train with seeds 0 to N - 1")
    add("--limit", type=_count, metavar="N", help="measure N images of each set at most")
    add("--out", type=Path, default=Path("runs/tables"), help="folder (default: runs/tables)")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected an integer >= 1")
    return int(text)


def _length(text: str) -> tuple[int | None, float | None]:
    """Steps or minutes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(steps|min)", text)
    if not found or float(found[1]) <= 0 or (found[2] == "steps" and not found[1].isdigit()):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected e.g. 2000steps or 20min")
    return (int(found[1]), None) if found[2] == "steps" else (None, float(found[1]))


def _run(args: argparse.Namespace) -> int:
    rows = _chosen(args.table, args.rows)
    budget = _budget(args)
    # Slow to import: mistakes in the command are reported without waiting for them.
    from train.experiments import Experiment, Experiments
    from train.measurements import Measurements, TestSet, parse_test_set, read_kernels
    from train.table_report import Report, listing

    experiments = Experiments(args.out / "runs")
    report = Report(experiments, Measurements(args.out / "measured"), args.out)
    if args.list:
        print(listing(report, rows))
        return 0
    sets = dict(map(parse_test_set, args.test))
    kernels = read_kernels(args.kernels)
    if kernels and len(kernels) != KERNELS:
        raise TrainError(f"--kernels: got {len(kernels)}; expected the {KERNELS} of table 7")
    if not sets and not args.train:
        raise TrainError("--train, --test: got neither; expected images to train or measure on")
    report.add_authors(args.authors)

    def test_sets(row: Row) -> list[TestSet]:
        """Those given that are in the row's table."""
        found = []
        for name in row.paper:
            source, _, kernel = name.partition(", kernel ")
            if source in sets and (not kernel or kernels):
                blur = kernels[int(kernel) - 1] if kernel else None
                found.append(TestSet(name, sets[source], blur))
        return found

    _set_up()
    status = 0
    for row in rows:
        if weights := report.authors_weights(row):
            for test_set in test_sets(row):
                report.measurements.measure(weights, test_set, limit=args.limit, say=say)
                report.write()
    for seed in range(args.seeds):
        for row in rows:
            experiment = Experiment(row, budget, seed)
            weights = experiments.weights(experiment)
            if args.train and experiments.digest(experiment) is None:
                try:
                    stopped = experiments.run(experiment, tuple(args.train), say)
                except TrainStopped as error:
                    # Another row may still be trained.
                    say(f"{row.label}: {one_line(error)}")
                    status = TrainStopped.status
                    continue
                if stopped:
                    report.write()
                    return stopped
            if weights.exists():
                for test_set in test_sets(row):
                    report.measurements.measure(weights, test_set, limit=args.limit, say=say)
            elif (digest := experiments.digest(experiment)) is not None:
                known = report.measurements.of(digest)
                if missing := [one.name for one in test_sets(row) if one.name not in known]:
                    say(
                        f"{row.label}, seed {seed}: not measured on {', '.join(missing)}; it was "
                        f"trained elsewhere, and its weights are not at {weights}"
                    )
            report.write()
    said = report.draw()
    report.write()  # tables.md shows the charts that there are
    for line in said:
        say(line)
    return status


def _chosen(tables: list[int] | None, names: list[str] | None) -> list[Row]:
    rows = [row for row in ROWS if tables is None or row.table in tables]
    if names is None:
        return rows
    known = {name for row in rows for name in (row.name, row.label)}
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(row.label for row in rows)
        raise TrainError(f"--rows: got {', '.join(unknown)}; expected some of {listed}")
    return [row for row in rows if row.name in names or row.label in names]


def _budget(args: argparse.Namespace) -> Budget:
    steps, minutes = args.budget or (None, None)
    if (args.width or args.blocks) and args.budget is None:
        raise TrainError(
            "--width, --blocks: got another size without --budget; add one, e.g. --budget 2000steps"
        )
    if args.budget is None:
        return Budget()
    if not 0 < args.learning_rate < float("inf"):
        raise TrainError(f"--learning-rate: got {args.learning_rate}; expected a positive number")
    return Budget(
        steps,
        minutes,
        args.width,
        args.blocks,
        args.batch_size,
        args.patch_size,
        args.learning_rate,
    )


def _set_up() -> None:
    import logging

    from converse_jax import compilation_cache

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs its errors and raises them
    compilation_cache.enable()


if __name__ == "__main__":
    from train.huge_pages import start_again_with_huge_pages

    start_again_with_huge_pages()
    leave(main())
