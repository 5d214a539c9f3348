"""`converse-jax evaluate`."""

from __future__ import annotations

import argparse

from converse_jax.cli._arguments import (
    UsageError,
    add_kernel,
    add_model,
    add_overwrite,
    add_solver,
    given_restorer,
    number,
)
from converse_jax.cli._table import Table, add_json, check_json

SUMMARY = "measure a model by the protocol of the paper, or on pairs of images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    parser.add_argument(
        "--task",
        choices=("denoise", "sr", "deblur"),
        help="degradation to apply and to reverse (default: the model's)",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of clean images")
    parser.add_argument(
        "--input",
        metavar="DIR",
        help="folder of degraded images with the names of the clean ones: nothing is degraded, "
        "these are restored",
    )
    parser.add_argument(
        "--sigma",
        type=_sigma,
        metavar="S",
        help="noise standard deviation, 0-255 scale (default 25 to denoise, 2.55 to deblur; "
        "estimated for --input)",
    )
    add_solver(parser, "default: network; pnp takes a model that denoises")
    add_kernel(parser, "blur of the task deblur, or of sr with --solver pnp")
    parser.add_argument(
        "--no-extend-borders",
        action="store_true",
        help="do not extend the borders of --input before deblurring: its blur was circular",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="measure N images at most, the first by name"
    )
    add_json(parser)
    add_overwrite(parser)


def _sigma(text: str) -> float:
    return number(text, 0, 255, "a noise level from 0 to 255")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.evaluate import evaluate

    if args.no_extend_borders and args.input is None:
        raise UsageError("--no-extend-borders is for --input: the protocol's blur is circular")
    check_json(args)
    restorer, kernel = given_restorer(args)
    with Table("evaluating") as table:
        report = evaluate(
            restorer,
            args.data,
            task=args.task,
            sigma=args.sigma,
            kernel=kernel,
            input=args.input,
            extend_borders=not args.no_extend_borders,
            limit=args.limit,
            on_result=table.add,
        )
    return table.end(report, args)
