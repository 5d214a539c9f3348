"""`converse-jax demo`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from converse_jax.cli._arguments import add_overwrite
from converse_jax.messages import printable, say

if TYPE_CHECKING:
    from converse_jax.demo import Example, Restoration

SUMMARY = "restore photographs with the bundled networks, side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", default=".", metavar="OUT", help="image to make, or its folder")
    parser.add_argument(
        "--operator",
        action="store_true",
        help="reverse a blur and a down-sampling with the operator alone, without a network",
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax import compilation_cache
    from converse_jax.demo import DEFAULT_NAME, choose_examples

    compilation_cache.enable()
    target = Path(args.out)
    if os.path.isdir(target):
        target = target / DEFAULT_NAME
    examples, missing = ([], []) if args.operator else choose_examples()
    if examples:
        _demo_networks(target, examples, args.overwrite)
        if missing:
            say(f"left out, as their networks do not come with this package: {', '.join(missing)}")
    else:
        _demo_operator(target, args.overwrite)
        if not args.operator:
            say("no network of the demo comes with this package: this is the operator alone")
    print(printable(str(target)))
    return 0


def _demo_networks(target: Path, examples: list[Example], overwrite: bool) -> None:
    from converse_jax import demo

    def on_result(result: Restoration) -> None:
        _print_gain(result.example.network, result.psnr_before, result.psnr_after)

    demo.demo_networks(target, examples, overwrite=overwrite, on_result=on_result)


def _demo_operator(target: Path, overwrite: bool) -> None:
    from converse_jax import demo

    deblurred, enlarged = demo.demo_operator(target, overwrite=overwrite)
    for what, x in (("deblurring", deblurred), ("super-resolution x2", enlarged)):
        _print_gain(what, x.psnr_before, x.psnr_after, f", lambda {x.lam:.2g}")


def _print_gain(name: str, before: float, after: float, more: str = "") -> None:
    line = f"{name:<20} {before:.2f} dB -> {after:.2f} dB ({after - before:+.2f} dB{more})"
    print(line, flush=True)
