"""`converse-jax convert`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from converse_jax.cli._arguments import UsageError, add_overwrite, loaded
from converse_jax.messages import exists_already, say

SUMMARY = "turn the authors' .pth weights into .safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="IN.PTH", help="authors' weights to read")
    parser.add_argument("target", metavar="OUT.SAFETENSORS", help="file to write")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.weights import WeightsError, save

    if Path(args.target).suffix != ".safetensors":
        raise UsageError(f"{args.target}: the name of OUT must end in .safetensors")
    if os.path.lexists(args.target) and not args.overwrite:
        raise WeightsError(exists_already(args.target))
    model, card = loaded(args.source)
    save(args.target, model, card, overwrite=args.overwrite)
    say(f"{args.target}: {card.architecture}, {card.purpose}")
    return 0
