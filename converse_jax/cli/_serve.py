"""`converse-jax serve`."""

from __future__ import annotations

import argparse
import functools
import signal

from converse_jax.cli._arguments import number
from converse_jax.messages import say

SUMMARY = "restore images in a page of this machine's browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--port",
        type=functools.partial(number, low=1, high=65535, expected="a port from 1 to 65535"),
        default=7860,
        metavar="N",
        help="port of the loopback to serve on (default 7860)",
    )


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax import compilation_cache
    from converse_jax.serve import serve

    # Ended in any way, it deletes what was uploaded.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    compilation_cache.enable()
    serve(port=int(args.port), ready=lambda address: say(f"{address} (Ctrl-C to end)"))
    return 0
