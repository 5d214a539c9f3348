"""`converse-jax evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from converse_jax.cli._arguments import (
    UsageError,
    add_model,
    add_overwrite,
    given_restorer,
    say,
)
from converse_jax.progress import progress_bar

SUMMARY = "measure a model by the protocol of the paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    parser.add_argument(
        "--task",
        required=True,
        choices=("denoise", "sr", "deblur"),
        help="degradation to apply and to reverse",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of clean images")
    parser.add_argument(
        "--sigma",
        type=float,
        metavar="S",
        help="noise standard deviation, 0-255 scale (default 25 to denoise, 2.55 to deblur)",
    )
    parser.add_argument("--kernel", metavar="K.NPY", help="blur kernel of the task deblur")
    parser.add_argument("--json", metavar="OUT.JSON", help="JSON file for the figures")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.evaluate import METRICS, Row, check_report_path, evaluate, write_report

    if args.json is not None:
        check_report_path(args.json, overwrite=args.overwrite)
    elif args.overwrite:
        raise UsageError("--overwrite is for the file of --json, and there is none")
    restorer, kernel = given_restorer(args)

    def line(name: str, figures: Any) -> str:
        values = (f"{figures[m]:>9.{4 if m.startswith('ssim') else 2}f}" for m in METRICS)
        return f"{name:<32}" + "".join(values)

    print(f"{'':<32}" + "".join(f"{metric:>9}" for metric in METRICS), flush=True)
    with progress_bar("evaluating") as advance:

        def on_result(row: Row, number: int, total: int) -> None:
            print(line(row["name"], row), flush=True)
            advance(number, total)

        report = evaluate(
            restorer,
            args.data,
            task=args.task,
            sigma=args.sigma,
            kernel=kernel,
            on_result=on_result,
        )
    print(line(f"mean of {len(report['images'])}", report["mean"]))
    for note in report["notes"]:
        say(note)
    if args.json is not None:
        write_report(args.json, report, overwrite=args.overwrite)
    return 0
