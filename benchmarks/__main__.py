"""`python -m benchmarks`: our operator and networks against Algorithm 1 in PyTorch.

Results are compared before anything is timed: the exit status is 1 if ours are wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.arguments import Parser, add_common, check, check_packages, chosen
from benchmarks.suite import suite


def main() -> int:
    """Parse the command line, and run."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="all rows, smaller, few repeats")
    add_common(parser)
    parser.add_argument("--only", metavar="TEXT", help="the rows whose name contains this")
    parser.add_argument(
        "--png", type=Path, help="time against size and channels: measure it, and draw it here"
    )
    args = parser.parse_args()
    check(parser, args)
    rows = chosen(parser, suite(quick=args.quick), args)
    check_packages(parser, args)

    from benchmarks.run import run

    return run(rows, args)


if __name__ == "__main__":
    sys.exit(main())
