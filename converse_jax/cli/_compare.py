"""`converse-jax compare`."""

from __future__ import annotations

import argparse

from converse_jax.cli._arguments import add_overwrite
from converse_jax.cli._table import Table, add_json, check_json

SUMMARY = "measure PSNR and SSIM of images against others, without a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("a", metavar="A", help="image, or folder of images")
    text = "image of the same size, or folder of images with the same names"
    parser.add_argument("b", metavar="B", help=text)
    parser.add_argument(
        "--border",
        type=int,
        default=0,
        metavar="N",
        help="pixels to leave out at every side (default 0; tables of super-resolution: the scale)",
    )
    add_json(parser)
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.compare import compare

    check_json(args)
    with Table("comparing") as table:
        report = compare(args.a, args.b, border=args.border, on_result=table.add)
    return table.end(report, args)
